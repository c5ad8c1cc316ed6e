//! The seam between a virtio device and whatever carries it to a driver.
//!
//! A carrier (a vhost-user session, a PCI function) gives each [`Vring`] of its driver to a [`Runner`],
//! which has a thread for each queue in use. The runner calls the [`Device`] there, with a
//! [`ServedQueue`] to take requests from. A device does not see its carrier, and a carrier sees of its
//! device only kind, features and configuration space.

pub mod chain;
pub mod device;
pub mod memory;
pub mod pci;
pub mod queue;
mod ring;
pub mod runner;
mod served;
#[cfg(any(test, feature = "test-utils"))]
pub mod test_utils;
pub mod vring;
mod wake;

pub use chain::{BufferError, Chain, Segments};
pub use device::{ConfigError, Device, DeviceKind};
pub use memory::{GuestMemory, Region, Translation};
pub use queue::{Queue, QueueError};
pub use runner::{RingOptions, Runner, StartError, StopError};
pub use served::{ServeError, ServedQueue};
pub use vring::{Notifier, Vring, VringLayout};
pub use wake::Wake;
