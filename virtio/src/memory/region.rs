//! One range of the driver's memory, mapped into this process.

use std::fs::File;
use std::io;
use std::sync::Arc;

use libc::{MAP_NORESERVE, MAP_SHARED, PROT_READ, PROT_WRITE};
use vm_memory::bitmap::BS;
use vm_memory::guest_memory::Result as MemoryResult;
use vm_memory::mmap::FromRangesError;
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryRegion, GuestMemoryRegionBytes, GuestUsize,
    MemoryRegionAddress, MmapRegion, VolatileMemory, VolatileSlice,
};

/// One contiguous range of guest-physical addresses, mapped into this process.
#[derive(Debug)]
pub struct Region {
    mapping: MmapRegion<()>,
    start: GuestAddress,
    direct_io: bool,
}

/// What a region is mapped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To be read.
    Read,
    /// To be read and written.
    ReadWrite,
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
        Self::map_for(Access::ReadWrite, file, offset, start, size, direct_io)
    }

    /// As [`Region::map`], for this access only. What is mapped for reading must be written by the
    /// kernel only, which then reports a failure: any other write is a fault of this process.
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
        let protection = match access {
            Access::Read => PROT_READ,
            Access::ReadWrite => PROT_READ | PROT_WRITE,
        };
        let source = Some(FileOffset::from_arc(file, offset));
        let mapping = MmapRegion::build(source, length, protection, MAP_NORESERVE | MAP_SHARED)
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
