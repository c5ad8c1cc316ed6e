//! The front-end's memory, as its messages build it up.

use std::sync::Arc;

use vhost::vhost_user::message::VhostUserMemoryRegion;
use virtio::GuestMemory;
use vm_memory::{Address, GuestAddress, GuestMemoryRegion};

use super::error::RequestError;
use crate::transport::MemoryRegion;

/// The most regions that are kept at a time: as many as other back-ends take.
pub const MAX_SLOTS: usize = 509;

/// The regions of a front-end's memory, by both of their addresses.
#[derive(Default)]
pub struct MemoryTable {
    regions: Vec<MemoryRegion>,
    guest: Arc<GuestMemory>,
}

impl MemoryTable {
    /// All of the memory, by guest-physical address.
    pub fn guest(&self) -> &Arc<GuestMemory> {
        &self.guest
    }

    /// Where an address of the front-end's own address space is in the guest's.
    pub fn translate(&self, user_addr: u64) -> Result<GuestAddress, RequestError> {
        let offset_in = |region: &MemoryRegion| {
            let offset = user_addr.checked_sub(region.user_addr)?;
            (offset < region.region.len()).then(|| region.region.start_addr().unchecked_add(offset))
        };
        self.regions
            .iter()
            .find_map(offset_in)
            .ok_or(RequestError::Address(user_addr))
    }

    /// Puts these regions in the place of all that there are.
    pub fn replace(&mut self, regions: Vec<MemoryRegion>) -> Result<(), RequestError> {
        if regions.len() > MAX_SLOTS {
            return Err(RequestError::Memory(format!(
                "more than {MAX_SLOTS} regions"
            )));
        }
        let mut sorted: Vec<_> = regions.iter().map(|region| region.region.clone()).collect();
        sorted.sort_by_key(|region| region.start_addr());
        let guest = match sorted.is_empty() {
            true => GuestMemory::default(),
            false => GuestMemory::from_arc_regions(sorted)
                .map_err(|error| RequestError::Memory(error.to_string()))?,
        };
        *self = Self {
            regions,
            guest: Arc::new(guest),
        };
        Ok(())
    }

    /// Adds regions to those that there are.
    pub fn add(&mut self, regions: Vec<MemoryRegion>) -> Result<(), RequestError> {
        self.replace(self.regions.iter().cloned().chain(regions).collect())
    }

    /// Removes the region with these addresses and this size.
    pub fn remove(&mut self, region: &VhostUserMemoryRegion) -> Result<(), RequestError> {
        let key = (region.guest_phys_addr, region.user_addr, region.memory_size);
        let is_other = |known: &&MemoryRegion| {
            (
                known.region.start_addr().0,
                known.user_addr,
                known.region.len(),
            ) != key
        };
        let rest: Vec<_> = self.regions.iter().filter(is_other).cloned().collect();
        if rest.len() == self.regions.len() {
            return Err(RequestError::Memory(format!(
                "there is no region at {:#x}",
                key.0
            )));
        }
        self.replace(rest)
    }
}
