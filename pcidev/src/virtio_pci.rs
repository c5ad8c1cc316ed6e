//! The device side of the virtio PCI transport (virtio 1.2, section 4.1).

mod layout;
mod queue;
mod registers;

pub use layout::{Layout, NOTIFY_MULTIPLIER, Place};
pub use queue::{BrokenQueue, RingQueue};
pub use registers::{Change, Registers};
