//! Memory that a peer shares with a program.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use vhost_user::{MemoryRegion, MemoryTable};
use virtio::test_utils::{DriverRing, anonymous_file};
use virtio::{GuestMemory, Region};
use vm_memory::GuestAddress;

/// The length of the memory, which begins at address 0.
pub const SIZE: u64 = 16 << 20;

/// The addresses of the rings. The ring of queue N begins N times `RING_SIZE` after `RINGS`.
const RINGS: u64 = 1 << 20;
const RING_SIZE: u64 = 0x8000;

/// The first address after the rings of 256 queues.
pub const DATA: u64 = RINGS + 256 * RING_SIZE;

/// Memory in one file, mapped into this process, too.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The file. A peer that truncates it must not access `memory` any more.
    pub file: Arc<File>,
    /// The mapped memory.
    pub memory: Arc<GuestMemory>,
}

impl Shared {
    /// New memory.
    pub fn new() -> Result<Self> {
        Self::of(anonymous_file(SIZE))
    }

    /// The memory in the file at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        Self::of(Arc::new(
            file.with_context(|| format!("cannot open {}", path.display()))?,
        ))
    }

    fn of(file: Arc<File>) -> Result<Self> {
        let region = Region::map(file.clone(), 0, GuestAddress(0), SIZE, true)?;
        let memory = Arc::new(GuestMemory::from_regions(vec![region])?);
        Ok(Self { file, memory })
    }

    /// An empty ring for queue `index`.
    pub fn ring(&self, index: u16, size: u16) -> Result<DriverRing> {
        let base = RINGS + RING_SIZE * u64::from(index);
        let zeroes = [0; RING_SIZE as usize];
        vm_memory::Bytes::write_slice(self.memory.as_ref(), &zeroes, GuestAddress(base))?;
        Ok(DriverRing::new(self.memory.clone(), base, size))
    }

    /// A memory table with the whole memory, at the same addresses for guest and front-end.
    pub fn table(&self) -> Result<MemoryTable<BorrowedFd<'_>>> {
        Ok(MemoryTable::new(vec![region(self.file.as_fd())])?)
    }
}

/// The region of a memory table that has all addresses from 0 to [`SIZE`] in this file.
pub fn region(memory: BorrowedFd<'_>) -> MemoryRegion<BorrowedFd<'_>> {
    MemoryRegion {
        guest_addr: 0,
        size: SIZE,
        user_addr: 0,
        file_offset: 0,
        memory,
    }
}
