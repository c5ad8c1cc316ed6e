//! The contiguous ranges of memory that hold the buffers of a chain.

use vm_memory::{GuestAddress, Permissions};

/// The maximum number of contiguous ranges of memory ("pieces") for the buffers of one chain. A
/// buffer has several pieces if the buffer crosses the end of a region or, behind an IOMMU, the end
/// of a mapping.
pub const MAX_PIECES: usize = 4096;

/// The maximum number of entries for which [`clear`] keeps memory. Most requests need fewer
/// entries, and 256 entries take little memory.
const KEPT_CAPACITY: usize = 256;

/// Empties a list for the next request, and frees memory that only unusually large requests need.
///
/// If lists kept all their memory, a driver could fill a queue once with requests of the maximum
/// size, and all this memory would stay allocated for as long as the queue is served.
pub fn clear<T>(list: &mut Vec<T>) {
    list.clear();
    list.shrink_to(KEPT_CAPACITY);
}

/// A buffer of a chain, or a contiguous part of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The address of the segment's first byte. Until a [`Queue`](crate::Queue) returns the chain,
    /// this is the driver's address. After that, it is an address in the regions of memory.
    pub addr: GuestAddress,
    /// Length in bytes.
    pub len: u32,
    /// The accesses that the device may make, or the reason why it may make none.
    pub access: Result<Permissions, Inaccessible>,
}

/// The reason why the device cannot access a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inaccessible {
    /// The segment is not in memory.
    OutsideMemory,
    /// The buffers of the segment's chain have more than [`MAX_PIECES`] pieces.
    TooManyPieces,
}

impl Segment {
    /// A segment for the buffer of a descriptor, with the descriptor's address and length. The
    /// segment allows all accesses until the buffer's memory is looked up.
    pub fn new(addr: u64, len: u32) -> Self {
        Self {
            addr: GuestAddress(addr),
            len,
            access: Ok(Permissions::ReadWrite),
        }
    }
}
