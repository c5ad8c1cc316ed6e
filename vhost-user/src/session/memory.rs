//! The memory that a front-end shares with a session.

use std::sync::Arc;

use virtio::{GuestMemory, Region};
use vm_memory::{GuestAddress, GuestMemoryRegion};

use super::mistake::Mistake;
use crate::memory::MemoryTable;

/// A front-end's memory, accessible by guest-physical addresses and by virtual addresses of the
/// front-end process.
#[derive(Default)]
pub struct SharedMemory {
    table: MemoryTable<Arc<Region>>,
    guest: Arc<GuestMemory>,
}

impl SharedMemory {
    pub fn new(table: MemoryTable<Arc<Region>>) -> Result<Self, Mistake> {
        let regions = table.regions().iter();
        let mut regions: Vec<_> = regions.map(|region| region.memory.clone()).collect();
        regions.sort_by_key(|region| region.start_addr());
        let guest = match regions.is_empty() {
            true => GuestMemory::default(),
            false => GuestMemory::from_arc_regions(regions)?,
        };
        let guest = Arc::new(guest);
        Ok(Self { table, guest })
    }

    /// The memory regions of the front-end.
    pub fn table(&self) -> &MemoryTable<Arc<Region>> {
        &self.table
    }

    /// All memory regions, accessible by guest-physical addresses.
    pub fn guest(&self) -> &Arc<GuestMemory> {
        &self.guest
    }

    /// Translates a virtual address of the front-end process into a guest-physical address.
    pub fn translate(&self, user_addr: u64) -> Result<GuestAddress, Mistake> {
        let found = self.table.translate(user_addr);
        found.ok_or(Mistake::Address(user_addr))
    }
}
