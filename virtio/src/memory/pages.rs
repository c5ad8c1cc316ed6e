//! Whole pages of a file, mapped into this process.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use libc::{MAP_NORESERVE, MAP_SHARED, PROT_READ, PROT_WRITE};
use vm_memory::mmap::MmapRegionError;
use vm_memory::{FileOffset, MmapRegion};

/// The smallest page of all supported machines, in bytes.
pub(super) const MIN_PAGE: u64 = 4096;

/// The accesses that the mapping of a region allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only reads.
    Read,
    /// Reads and writes.
    ReadWrite,
}

/// A range of whole pages of a file. The range's offset and length are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pages {
    /// The offset of the first page in the file.
    pub offset: u64,
    pub len: usize,
    /// The size of a page. The kernel maps and unmaps pages only as a whole.
    pub size: usize,
}

impl Pages {
    /// The pages that hold the `size` bytes of a file from `offset` on. `None` if the offset of the
    /// pages' end does not fit 64 bits.
    ///
    /// The kernel maps and unmaps a huge page only as a whole. So a mapping whose length ends
    /// inside a huge page could never be unmapped.
    pub fn around(metadata: &Metadata, offset: u64, size: u64) -> Option<Self> {
        Self::of_size(page_size(metadata), offset, size)
    }

    fn of_size(page: u64, offset: u64, size: u64) -> Option<Self> {
        let end = offset.checked_add(size)?.checked_next_multiple_of(page)?;
        let offset = offset - offset % page;
        let len = usize::try_from(end - offset).ok()?;
        let size = usize::try_from(page).ok()?;
        Some(Self { offset, len, size })
    }

    /// Maps the pages, until the returned region is dropped.
    pub fn map(self, access: Access, file: Arc<File>) -> io::Result<MmapRegion> {
        let protection = match access {
            Access::Read => PROT_READ,
            Access::ReadWrite => PROT_READ | PROT_WRITE,
        };
        let source = Some(FileOffset::from_arc(file, self.offset));
        let flags = MAP_NORESERVE | MAP_SHARED;
        MmapRegion::build(source, self.len, protection, flags).map_err(|error| match error {
            MmapRegionError::Mmap(error) => error,
            other => io::Error::other(other),
        })
    }
}

/// The size of a file's pages, in bytes.
///
/// For a regular file, the result is the file system's block size. For a memfd or hugetlbfs file
/// with huge pages, the block size is the page size. In other file systems a block may be larger
/// than a page. Then more of the file is mapped than needed, which does no harm. For a file that is
/// not a regular file, the result is the smallest page size, because the file may be a device's
/// BAR, and a larger mapping could include memory outside the BAR.
fn page_size(metadata: &Metadata) -> u64 {
    let block = metadata.blksize();
    if metadata.is_file() && block.is_power_of_two() {
        block.max(MIN_PAGE)
    } else {
        MIN_PAGE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_utils::anonymous_file;

    const MIB: u64 = 1 << 20;

    #[test]
    fn pages_cover_a_range_and_nothing_beyond_its_first_and_last_page() {
        for (page, offset, size, expected) in [
            (4096, 0, 1, (0, 4096)),
            (4096, 0, 4096, (0, 4096)),
            (4096, 4095, 2, (0, 8192)),
            (2 * MIB, 0, 0xa_0000, (0, 2 * MIB)),
            (2 * MIB, 0xc_0000, 0x10_0000, (0, 2 * MIB)),
            (2 * MIB, 0xc_0000, 2 * MIB, (0, 4 * MIB)),
            (2 * MIB, 2 * MIB, 2 * MIB, (2 * MIB, 2 * MIB)),
            (4096, u64::MAX - 8191, 4096, (u64::MAX - 8191, 4096)),
        ] {
            let pages = Pages::of_size(page, offset, size).unwrap();
            let found = (pages.offset, pages.len as u64);
            assert_eq!(found, expected, "{size:#x} bytes at {offset:#x}");
        }
        assert_eq!(Pages::of_size(4096, u64::MAX - 100, 50), None);
        assert_eq!(Pages::of_size(2 * MIB, u64::MAX - 8191, 4096), None);
        assert_eq!(Pages::of_size(4096, u64::MAX, 2), None);
    }

    #[test]
    fn arithmetic_of_pages_holds_for_all_small_ranges() {
        for page in [1, 2, 4, 8] {
            for (offset, size) in (0..20).flat_map(|o| (1..20).map(move |s| (o, s))) {
                let pages = Pages::of_size(page, offset, size).unwrap();
                let (first, end) = (pages.offset, pages.offset + pages.len as u64);
                assert!(first.is_multiple_of(page) && end.is_multiple_of(page));
                assert!(first <= offset && offset < first + page);
                assert!(offset + size <= end && end < offset + size + page);
            }
        }
    }

    #[test]
    fn plain_files_have_pages_of_at_least_the_smallest_size() {
        let metadata = anonymous_file(1).metadata().unwrap();
        assert!(page_size(&metadata) >= MIN_PAGE);
        let device = File::open("/dev/null").unwrap().metadata().unwrap();
        assert_eq!(page_size(&device), MIN_PAGE);
    }
}
