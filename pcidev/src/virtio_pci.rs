//! The device side of the virtio PCI transport (virtio 1.2, section 4.1).

mod layout;
mod queue;
mod registers;
mod structures;

pub use layout::{Layout, Place};
pub use queue::{BrokenQueue, RingQueue};
pub use registers::{Change, Registers};
pub use structures::{Event, Structures};
