//! The errors of a ring.

use vm_memory::GuestMemoryError;

use crate::VringLayout;
use crate::memory::MemoryLost;

/// An error that concerns the ring as a whole, not a single request. The device cannot serve
/// further requests from the ring.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The size is not valid for the layout, or an address is misaligned or outside memory.
    #[error("vring of {} descriptors at desc {:#x}, avail {:#x}, used {:#x} does not fit memory \
             or is misaligned", .0.size, .0.desc.0, .0.avail.0, .0.used.0)]
    BadLayout(VringLayout),
    /// The available index moved by more than the queue's size.
    #[error("available index jumped from {next} to {index} in a queue of {size}")]
    AvailIndex {
        /// The index, in the available ring, of the first request that the device has not taken
        /// yet.
        next: u16,
        /// The available index that the driver wrote.
        index: u16,
        /// The queue's size.
        size: u16,
    },
    /// The position at which a packed queue has to start is outside the queue's ring.
    #[error("a queue of {size} descriptors cannot begin at descriptor {index}")]
    Position {
        /// The descriptor index in the start position.
        index: u16,
        /// The queue's size.
        size: u16,
    },
    /// The buffer id of a chain in a packed queue is not below the queue's size.
    #[error("buffer id {0} is not below the queue's size")]
    BufferId(u16),
    /// The driver made a chain available while another chain with the same head or buffer id was in
    /// flight.
    #[error("chain {0} is made available while it is in flight")]
    InFlight(u16),
    /// A descriptor index is not below its table's length.
    #[error("descriptor index {index} is outside its table of {len}")]
    DescriptorIndex {
        /// The index that was found in the available ring or in a `next` field.
        index: u16,
        /// The number of entries in the table.
        len: u32,
    },
    /// A chain has more descriptors than the limit. The chain may be a loop.
    #[error("descriptor chain has more than {0} descriptors")]
    ChainTooLong(u16),
    /// An indirect descriptor that virtio forbids. The feature was not negotiated, or the
    /// descriptor is inside an indirect table, has the flag NEXT, or follows other descriptors in a
    /// packed queue.
    #[error("indirect descriptor in a place where virtio forbids it")]
    BadIndirect,
    /// An indirect table whose length is zero, or not a multiple of a descriptor's size.
    #[error("an indirect table of {0} bytes does not consist of descriptors")]
    IndirectLength(u32),
    /// A chain with a device-readable buffer after a device-writable buffer.
    #[error("device-readable buffer after a device-writable one")]
    Order,
    /// A ring or an indirect table is outside memory, for example because the driver has unmapped
    /// its addresses.
    #[error("a ring or a table of descriptors is outside of memory")]
    Memory(#[from] GuestMemoryError),
    /// A page of the driver's memory was missing, so nothing that was read can be trusted.
    #[error(transparent)]
    MemoryLost(#[from] MemoryLost),
}
