//! A range of a peer's file, mapped into this process.

use std::fs::File;
use std::sync::Arc;

use vm_memory::{MmapRegion, VolatileMemory, VolatileSlice};

use super::error::RegionError;
use super::loss::{Place, Registration};
use super::pages::{Access, Pages};

/// A range of a peer's file, mapped into this process. The range need not begin or end at a page
/// boundary.
///
/// The peer may change the bytes at any moment, and may truncate the file. See [`is_lost`].
///
/// [`is_lost`]: MappedRange::is_lost
#[derive(Debug)]
pub struct MappedRange {
    /// Declared before `pages`, because fields are dropped in the order of their declaration, and
    /// the registration has to be dropped first.
    registration: Registration,
    /// The mapped whole pages of the file. The range is a part of these pages.
    pages: MmapRegion,
    /// The offset of the range in its mapped pages, in bytes.
    skip: usize,
    /// Length of the range in bytes.
    len: usize,
}

impl MappedRange {
    /// Maps `len` bytes of `file` from `offset` on. A regular file must not be shorter than
    /// `offset + len`.
    ///
    /// # Errors
    ///
    /// See [`RegionError`].
    pub fn new(
        access: Access,
        file: Arc<File>,
        offset: u64,
        len: u64,
    ) -> Result<Self, RegionError> {
        let bad_range = || RegionError::BadRange {
            start: offset,
            size: len,
        };
        let needed = offset.checked_add(len).filter(|_| len > 0);
        let needed = needed.ok_or_else(bad_range)?;
        let metadata = file.metadata().map_err(RegionError::Stat)?;
        if metadata.is_file() && metadata.len() < needed {
            return Err(RegionError::FileTooShort {
                needed,
                actual: metadata.len(),
            });
        }
        let pages = Pages::around(&metadata, offset, len).ok_or_else(bad_range)?;
        let mapped = pages.map(access, file).map_err(RegionError::Map)?;
        Ok(Self {
            registration: Registration::new(Place {
                start: mapped.as_ptr() as usize,
                len: mapped.size(),
                unit: pages.size,
            }),
            pages: mapped,
            // The offset in the pages and the length both fit, because neither is more than the
            // length of the pages.
            skip: (offset - pages.offset) as usize,
            len: len as usize,
        })
    }

    /// The length of the range in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Always false, because a range has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address of the first byte.
    pub fn as_ptr(&self) -> *mut u8 {
        self.pages.as_ptr().wrapping_add(self.skip)
    }

    /// The `len` bytes of the range from `offset` on. `None` if they are not inside the range.
    pub fn slice(&self, offset: usize, len: usize) -> Option<VolatileSlice<'_>> {
        let end = offset.checked_add(len)?;
        if end > self.len {
            return None;
        }
        self.pages.get_slice(self.skip + offset, len).ok()
    }

    /// Whether a page of the range was missing when this process accessed the page: the peer
    /// truncated the file, or there was no space for the page. The page then reads as zeroes, and
    /// the peer does not see what this process writes to it.
    ///
    /// Without [`survive_losses`](super::survive_losses), such an access ends the process.
    pub fn is_lost(&self) -> bool {
        self.registration.is_lost()
    }
}
