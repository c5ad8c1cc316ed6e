//! The operations that storage carries out on ranges of the disk.

/// Size of a sector in bytes. Sector numbers and the capacity count sectors of this size, even if
/// the block size is larger.
pub const SECTOR_SIZE: u64 = 512;

/// A range of the disk in bytes. It lies inside the disk and consists of whole sectors.
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
    /// Moves data from memory to the image. The operation is done when a later read sees the data.
    Write,
    /// Moves data from memory to the image. The operation is done when the data is on stable
    /// storage.
    WriteStable,
    /// Puts the data of all earlier writes on stable storage.
    #[default]
    Flush,
    /// Tells a block device that the content of the range is no longer needed.
    Discard,
    /// Discards the range and makes sure that nobody can recover its content.
    SecureErase,
    /// Zeroes the range and frees its space if the storage can free space.
    Unmap,
    /// Zeroes the range and keeps its space allocated.
    Zero,
    /// Zeroes the range and frees its space.
    Punch,
    /// Allocates space for the range and keeps its content.
    Allocate,
}

impl Operation {
    /// The operations to carry out instead, one after another, on storage that does not support
    /// this operation. Together they have the effect of this operation. The list is empty if the
    /// operation has no replacement.
    pub fn replacement(self) -> &'static [Operation] {
        match self {
            Self::Unmap => &[Self::Zero],
            // For example, tmpfs needs this replacement, because it lacks FALLOC_FL_ZERO_RANGE.
            Self::Zero => &[Self::Punch, Self::Allocate],
            _ => &[],
        }
    }

    /// Whether the operation changes the image, but a flush has to make the change stable.
    pub fn is_volatile(self) -> bool {
        !matches!(self, Self::Read | Self::WriteStable | Self::Flush)
    }

    /// Whether the operation includes a flush. If such an operation fails, earlier changes may be
    /// lost.
    pub fn flushes(self) -> bool {
        matches!(self, Self::WriteStable | Self::Flush)
    }

    /// Whether the operation moves data. An operation that does not move data takes a single system
    /// call.
    pub fn moves_data(self) -> bool {
        matches!(self, Self::Read | Self::Write | Self::WriteStable)
    }
}

/// One step of a request: an operation and its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub operation: Operation,
    pub range: Range,
}

impl Step {
    /// A flush, which puts the effect of the earlier steps on stable storage.
    pub const FLUSH: Self = Self {
        operation: Operation::Flush,
        range: Range { offset: 0, len: 0 },
    };
}
