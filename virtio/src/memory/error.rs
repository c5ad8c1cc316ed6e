//! The failures of mapping memory.

use std::io;

/// The reason for which a region could not be mapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// The region has no bytes, or its last address or its end in the file does not fit 64 bits.
    #[error("memory region at {start:#x} with {size:#x} bytes is empty or wraps around")]
    BadRange {
        /// First guest-physical address, or the offset in the file.
        start: u64,
        /// Length of the region in bytes.
        size: u64,
    },
    /// The backing file ends before the end of the region.
    #[error("memory region needs {needed:#x} bytes of its file, which has only {actual:#x}")]
    FileTooShort {
        /// Bytes from the start of the file to the end of the region.
        needed: u64,
        /// The file's length in bytes.
        actual: u64,
    },
    /// The kernel refused the mapping.
    #[error("cannot map a memory region")]
    Map(#[source] io::Error),
    /// The size of the backing file cannot be read.
    #[error("cannot get the size of a memory region's file")]
    Stat(#[source] io::Error),
}
