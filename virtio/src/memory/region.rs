//! One range of the driver's memory, mapped into this process.

use std::fs::File;
use std::sync::Arc;

use vm_memory::bitmap::BS;
use vm_memory::guest_memory::{Error as MemoryError, Result as MemoryResult};
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryRegion, GuestMemoryRegionBytes, GuestUsize,
    MemoryRegionAddress, VolatileSlice,
};

use super::error::RegionError;
use super::mapped::MappedRange;
use super::pages::Access;

/// One contiguous range of guest-physical addresses, mapped into this process.
#[derive(Debug)]
pub struct Region {
    range: MappedRange,
    start: GuestAddress,
    file: FileOffset,
    direct_io: bool,
}

impl Region {
    /// Maps `size` bytes of `file` from `offset` on, for reads and writes. The guest-physical
    /// address of the first byte is `start`. A regular file must not be shorter than `offset +
    /// size`.
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
        Self::map_for(Access::ReadWrite, file, offset, start, size, direct_io)
    }

    /// Like [`Region::map`], but for the given accesses. This process must not write to a region
    /// that is mapped only for reads, because the write would end the process by SIGSEGV. A system
    /// call that writes to such a region fails.
    ///
    /// # Errors
    ///
    /// See [`RegionError`].
    pub fn map_for(
        access: Access,
        file: Arc<File>,
        offset: u64,
        start: GuestAddress,
        size: u64,
        direct_io: bool,
    ) -> Result<Self, RegionError> {
        if size == 0 || start.0.checked_add(size - 1).is_none() {
            return Err(RegionError::BadRange {
                start: start.0,
                size,
            });
        }
        Ok(Self {
            range: MappedRange::new(access, file.clone(), offset, size)?,
            start,
            file: FileOffset::from_arc(file, offset),
            direct_io,
        })
    }

    /// Whether the kernel can pin this memory, so that O_DIRECT I/O needs no intermediate copy.
    pub fn direct_io(&self) -> bool {
        self.direct_io
    }

    /// Whether a page of the region was missing when this process accessed the page. See
    /// [`MappedRange::is_lost`].
    pub fn is_lost(&self) -> bool {
        self.range.is_lost()
    }
}

impl GuestMemoryRegion for Region {
    type B = ();

    fn len(&self) -> GuestUsize {
        self.range.len() as GuestUsize
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
        Some(&self.file)
    }

    fn get_slice(
        &self,
        offset: MemoryRegionAddress,
        count: usize,
    ) -> MemoryResult<VolatileSlice<'_, BS<'_, Self::B>>> {
        let offset = usize::try_from(offset.0).ok();
        let slice = offset.and_then(|offset| self.range.slice(offset, count));
        slice.ok_or(MemoryError::InvalidBackendAddress)
    }
}

impl GuestMemoryRegionBytes for Region {}
