//! Memory of this process that a function may access.

use std::fs::File;
use std::io;
use std::ops::{Deref, RangeInclusive};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::Mapping;
use super::mapping::page_size;

/// The preferred I/O virtual address for memory. This address avoids address 0, the interrupt
/// window of x86 below 4 GiB, and the low memory that firmware reserves.
const PREFERRED_IOVA: u64 = 0x1000_0000;

/// Anonymous shared memory in whole pages, zeroed at first. A file holds the memory, so that
/// another process can share it.
#[derive(Debug)]
pub struct DmaMemory {
    file: Arc<File>,
    mapping: Mapping,
}

impl DmaMemory {
    /// Makes memory of at least `len` bytes.
    ///
    /// # Errors
    ///
    /// When the operating system refuses the memory.
    pub fn new(len: usize) -> io::Result<Arc<Self>> {
        let len = (len as u64).next_multiple_of(page_size());
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = Arc::new(File::from(memfd_create("vvu-dma", flags)?));
        file.set_len(len)?;
        // A vfio-user server gets the file. The seals keep the server from truncating the file.
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Self::from_file(file, len)
    }

    /// Memory that consists of the first `len` bytes of a file.
    pub(super) fn from_file(file: Arc<File>, len: u64) -> io::Result<Arc<Self>> {
        let mapping = Mapping::new(file.clone(), 0, len)?;
        Ok(Arc::new(Self { file, mapping }))
    }

    /// The file that holds the memory. The memory begins at the start of the file.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }
}

impl Deref for DmaMemory {
    type Target = Mapping;

    fn deref(&self) -> &Mapping {
        &self.mapping
    }
}

/// Picks an I/O virtual address for `len` bytes. The address is aligned to a page and is not 0.
/// `None` if no range is large enough.
pub fn choose_iova(ranges: &[RangeInclusive<u64>], len: u64) -> Option<u64> {
    let fits = |start: u64, range: &RangeInclusive<u64>| {
        let last = start.checked_add(len.checked_sub(1)?)?;
        (range.contains(&start) && range.contains(&last)).then_some(start)
    };
    let preferred = ranges.iter().find_map(|range| fits(PREFERRED_IOVA, range));
    preferred.or_else(|| {
        ranges.iter().find_map(|range| {
            let start = (*range.start()).max(1);
            fits(start.checked_next_multiple_of(page_size())?, range)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_whole_pages() {
        let memory = DmaMemory::new(5000).unwrap();
        assert_eq!(memory.len() % 4096, 0);
        assert!(memory.len() >= 5000);
        assert_eq!(memory.file().metadata().unwrap().len(), memory.len() as u64);
    }

    #[test]
    fn another_process_cannot_truncate_the_memory() {
        let memory = DmaMemory::new(5000).unwrap();
        let refused = memory.file().set_len(0).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        memory.write(0, 7u32);
        assert_eq!(memory.read::<u32>(0), 7);
    }

    #[test]
    fn addresses_come_from_the_allowed_ranges() {
        let choose = |ranges: &[RangeInclusive<u64>]| choose_iova(ranges, 0x2000);
        assert_eq!(choose(&[0..=u64::MAX]), Some(0x1000_0000));
        assert_eq!(choose(&[0..=0xff_ffff]), Some(page_size()), "never 0");
        assert_eq!(
            choose(&[0x1001..=0x1fff, 0x8000_0000..=0x8000_ffff]),
            Some(0x8000_0000)
        );
        assert_eq!(choose(&[0x1000..=0x2ffe]), None, "a byte too short");
        assert_eq!(choose(&[u64::MAX..=u64::MAX]), None);
        assert_eq!(choose(&[]), None);
    }
}
