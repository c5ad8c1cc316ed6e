//! The driver's memory, as a sorted set of mapped regions.

use std::fs::File;
use std::io;
use std::sync::Arc;

use vm_memory::bitmap::BS;
use vm_memory::guest_memory::Result as MemoryResult;
use vm_memory::mmap::FromRangesError;
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryRegion, GuestMemoryRegionBytes, GuestRegionCollection,
    GuestUsize, MemoryRegionAddress, MmapRegion, VolatileMemory, VolatileSlice,
};

/// All memory a driver shares with its device, addressed by guest-physical address.
///
/// It is shared with a peer that may write to it at any moment, so it is only ever accessed through
/// volatile slices, atomics, or the kernel.
pub type GuestMemory = GuestRegionCollection<Region>;

/// One contiguous range of guest-physical addresses, mapped into this process.
#[derive(Debug)]
pub struct Region {
    mapping: MmapRegion<()>,
    start: GuestAddress,
    direct_io: bool,
}

/// Why a region could not be mapped.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// The region has no bytes, or its last address does not fit 64 bits.
    #[error("memory region at {start:#x} with {size:#x} bytes is empty or wraps around")]
    BadRange {
        /// First guest-physical address.
        start: u64,
        /// Length in bytes.
        size: u64,
    },
    /// The backing file ends before the region does.
    #[error("memory region needs {needed:#x} bytes of its file, which has only {actual:#x}")]
    FileTooShort {
        /// Bytes from the start of the file to the end of the region.
        needed: u64,
        /// The file's length in bytes.
        actual: u64,
    },
    /// The kernel refused the mapping.
    #[error("cannot map memory region: {0}")]
    Map(#[from] FromRangesError),
    /// The backing file could not be looked at.
    #[error("cannot get the size of a memory region's file: {0}")]
    Stat(#[source] io::Error),
}

impl Region {
    /// Maps `size` bytes of `file` from `offset` on as the guest-physical range that begins at
    /// `start`, after checking that a regular file is long enough.
    ///
    /// `direct_io` says whether the kernel can pin this memory: true for RAM (a memfd, hugetlbfs,
    /// tmpfs), false for the BAR of a PCI device.
    ///
    /// # Errors
    ///
    /// See [`RegionError`].
    pub fn map(
        file: Arc<File>,
        offset: u64,
        start: GuestAddress,
        size: u64,
        direct_io: bool,
    ) -> Result<Self, RegionError> {
        let bad_range = || RegionError::BadRange {
            start: start.0,
            size,
        };
        let length = usize::try_from(size).map_err(|_| bad_range())?;
        if size == 0 || start.0.checked_add(size - 1).is_none() {
            return Err(bad_range());
        }
        let needed = offset.checked_add(size).ok_or_else(bad_range)?;
        let metadata = file.metadata().map_err(RegionError::Stat)?;
        if metadata.is_file() && metadata.len() < needed {
            return Err(RegionError::FileTooShort {
                needed,
                actual: metadata.len(),
            });
        }
        let mapping = MmapRegion::from_file(FileOffset::from_arc(file, offset), length)
            .map_err(FromRangesError::from)?;
        Ok(Self {
            mapping,
            start,
            direct_io,
        })
    }

    /// True when the kernel can pin this memory, so that O_DIRECT I/O can go straight to it.
    pub fn direct_io(&self) -> bool {
        self.direct_io
    }
}

impl GuestMemoryRegion for Region {
    type B = ();

    fn len(&self) -> GuestUsize {
        self.mapping.size() as GuestUsize
    }

    fn start_addr(&self) -> GuestAddress {
        self.start
    }

    fn bitmap(&self) -> BS<'_, Self::B> {}

    fn get_host_address(&self, addr: MemoryRegionAddress) -> MemoryResult<*mut u8> {
        self.get_slice(addr, 1)
            .map(|slice| slice.ptr_guard_mut().as_ptr())
    }

    fn file_offset(&self) -> Option<&FileOffset> {
        self.mapping.file_offset()
    }

    fn get_slice(
        &self,
        offset: MemoryRegionAddress,
        count: usize,
    ) -> MemoryResult<VolatileSlice<'_, BS<'_, Self::B>>> {
        Ok(self.mapping.get_slice(offset.0 as usize, count)?)
    }
}

impl GuestMemoryRegionBytes for Region {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_utils::anonymous_file;
    use vm_memory::{Bytes, GuestMemoryBackend};

    #[test]
    fn maps_at_the_given_file_offset() {
        let file = anonymous_file(0x3000);
        let low = Region::map(file.clone(), 0, GuestAddress(0), 0x3000, true).unwrap();
        let high = Region::map(file, 0x2000, GuestAddress(0x10_0000), 0x1000, true).unwrap();
        let memory = GuestMemory::from_regions(vec![low, high]).unwrap();
        memory.write_obj(0x55u8, GuestAddress(0x10_0004)).unwrap();
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0x2004)).unwrap(), 0x55);
        assert!(memory.find_region(GuestAddress(0x3000)).is_none());
    }

    #[test]
    fn refuses_regions_that_cannot_be() {
        let file = anonymous_file(0x1000);
        let map = |offset, start, size| {
            Region::map(file.clone(), offset, GuestAddress(start), size, true).unwrap_err()
        };
        assert!(matches!(map(0, 0, 0), RegionError::BadRange { .. }));
        assert!(matches!(map(0, u64::MAX, 2), RegionError::BadRange { .. }));
        assert!(matches!(map(u64::MAX, 0, 2), RegionError::BadRange { .. }));
        assert!(matches!(
            map(0, 0, 0x1001),
            RegionError::FileTooShort { .. }
        ));
        assert!(matches!(
            map(0x1000, 0, 1),
            RegionError::FileTooShort { .. }
        ));
    }
}
