//! The seam between a virtio device and whatever carries it to a driver.
//!
//! A carrier (a vhost-user session, a PCI function) knows a [`Device`] only by its feature bits, its
//! configuration space and its ability to run a [`Vring`]. A device knows its carrier only by the
//! [`GuestMemory`], the kick eventfd and the [`Notifier`]s inside that vring. Neither side sees the
//! other's concepts.

pub mod chain;
pub mod device;
pub mod memory;
pub mod pci;
pub mod queue;
mod ring;
#[cfg(any(test, feature = "test-utils"))]
pub mod test_utils;
pub mod vring;

pub use chain::{Chain, Segment, Segments};
pub use device::{ConfigError, Device, RunningVring, StartError};
pub use memory::{GuestMemory, Region, Translation};
pub use queue::{Queue, QueueError};
pub use vring::{Notifier, Vring, VringLayout};
