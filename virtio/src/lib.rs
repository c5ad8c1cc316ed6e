//! The interface between virtio devices and the carriers that connect them to drivers.
//!
//! A carrier (a vhost-user session, or a PCI function) gives each [`Vring`] of its driver to a
//! [`Runner`], which has a thread for each queue in use. On the thread of a queue, the runner calls
//! the [`Device`] with a [`ServedQueue`], from which the device takes requests. A device does not
//! depend on its carrier. A carrier uses only the type, the features and the configuration space of
//! the device.

pub mod chain;
pub mod device;
mod error;
pub mod memory;
pub mod pci;
pub mod queue;
mod ring;
pub mod runner;
mod segment;
mod served;
mod silence;
#[cfg(any(test, feature = "test-utils"))]
pub mod test_utils;
pub mod vring;
mod waiting;
mod wake;

pub use chain::{BufferError, Chain, Segments};
pub use device::{ConfigError, Device, DeviceKind};
pub use error::QueueError;
pub use memory::{GuestMemory, Region, Translation};
pub use queue::Queue;
pub use runner::{RingOptions, Runner, StartError, StopError};
pub use served::{ServeError, ServedQueue};
pub use silence::NoRequests;
pub use vring::{Notifier, Vring, VringLayout};
pub use waiting::{Found, Sleep};
pub use wake::Wake;
