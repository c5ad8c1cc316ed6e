//! Operations of the storage on ranges of the disk.

/// Unit in bytes of every sector number and of the capacity, whatever the block size.
pub const SECTOR_SIZE: u64 = 512;

/// A range of the disk in bytes, within its size and of whole sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub offset: u64,
    pub len: u64,
}

/// An operation on the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Moves data from the image to memory.
    Read,
    /// Moves data from memory to the image. It is done when a later read sees the data.
    Write,
    /// Moves data from memory to the image. It is done when the data is on stable storage.
    WriteStable,
    /// Puts everything that was written before on stable storage.
    #[default]
    Flush,
    /// Tells a block device that the content of the range is not needed any more.
    Discard,
    /// Discards, and makes sure that nobody can recover the content.
    SecureErase,
    /// Zeroes the range and frees its space if the storage can.
    Unmap,
    /// Zeroes the range and keeps its space allocated.
    Zero,
    /// Zeroes the range and frees its space.
    Punch,
    /// Allocates space for the range and keeps its content.
    Allocate,
}

impl Operation {
    /// Operations that together have the same effect, for storage that does not know this one.
    /// Their order matters. Empty if there is no replacement.
    pub fn replacement(self) -> &'static [Operation] {
        match self {
            Self::Unmap => &[Self::Zero],
            // Needed for instance on tmpfs.
            Self::Zero => &[Self::Punch, Self::Allocate],
            _ => &[],
        }
    }

    /// Whether the operation moves data. One system call does all of an operation that does not.
    pub fn moves_data(self) -> bool {
        matches!(self, Self::Read | Self::Write | Self::WriteStable)
    }
}

/// One operation of a request that takes several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub operation: Operation,
    pub range: Range,
}

impl Step {
    /// Makes the effect of the steps before it stable.
    pub const FLUSH: Self = Self {
        operation: Operation::Flush,
        range: Range { offset: 0, len: 0 },
    };
}
