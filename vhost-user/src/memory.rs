//! The memory regions of a front-end, as messages describe them.

use std::sync::Arc;

use virtio::Region;
use vm_memory::GuestAddress;

use crate::payload::{Fields, PayloadError};

/// The maximum number of memory regions that a front-end can share at a time. Other back-ends have
/// the same maximum.
pub const MAX_SLOTS: usize = 509;

/// A region of a front-end's memory, and the object that gives access to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRegion<M> {
    /// The first guest-physical address of the region.
    pub guest_addr: u64,
    /// The length of the region in bytes.
    pub size: u64,
    /// The region's first user address, which is an address in the virtual address space of the
    /// front-end process. The addresses of vrings are user addresses, too.
    pub user_addr: u64,
    /// The offset of the region's first byte in its file.
    pub file_offset: u64,
    /// A descriptor of the region's file, or the mapped memory.
    pub memory: M,
}

impl<M> MemoryRegion<M> {
    /// A copy of the region in which `memory` is replaced.
    pub fn with<N>(&self, memory: N) -> MemoryRegion<N> {
        MemoryRegion {
            guest_addr: self.guest_addr,
            size: self.size,
            user_addr: self.user_addr,
            file_offset: self.file_offset,
            memory,
        }
    }

    pub(crate) fn decode(fields: &mut Fields<'_>, memory: M) -> Result<Self, PayloadError> {
        Ok(Self {
            guest_addr: fields.u64()?,
            size: fields.u64()?,
            user_addr: fields.u64()?,
            file_offset: fields.u64()?,
            memory,
        })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let fields = [self.guest_addr, self.size, self.user_addr, self.file_offset];
        fields.map(u64::to_le_bytes).concat()
    }

    fn is_range(&self) -> bool {
        let fits = |start: u64| start.checked_add(self.size).is_some();
        self.size > 0 && fits(self.guest_addr) && fits(self.user_addr)
    }

    /// Whether two regions have guest-physical addresses or user addresses in common.
    fn overlaps(&self, other: &Self) -> bool {
        let meet = |one: u64, two: u64| one < two + other.size && two < one + self.size;
        meet(self.guest_addr, other.guest_addr) || meet(self.user_addr, other.user_addr)
    }

    fn is_at(&self, guest_addr: u64, user_addr: u64, size: u64) -> bool {
        (self.guest_addr, self.user_addr, self.size) == (guest_addr, user_addr, size)
    }
}

/// The reason why a list of regions cannot be a front-end's memory.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryError {
    /// The region with this number has no bytes, or its addresses do not fit in 64 bits.
    #[error("memory region {0} is empty or wraps around")]
    BadRange(usize),
    /// The regions with these numbers have addresses in common.
    #[error("memory regions {0} and {1} overlap")]
    Overlap(usize, usize),
    /// There are more than [`MAX_SLOTS`] regions.
    #[error("there would be more than {MAX_SLOTS} memory regions")]
    TooMany,
    /// The region to remove, which begins at this guest-physical address, does not exist.
    #[error("there is no such memory region at {0:#x}")]
    NoSuchRegion(u64),
}

/// The checked regions of a front-end's memory. There are at most [`MAX_SLOTS`] regions. No region
/// is empty, and no region's addresses wrap around. No two regions have guest-physical addresses or
/// user addresses in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryTable<M>(Vec<MemoryRegion<M>>);

impl<M> Default for MemoryTable<M> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<M> MemoryTable<M> {
    /// Checks the regions and makes a table of them.
    ///
    /// # Errors
    ///
    /// [`MemoryError`], in which the regions are numbered from 0.
    pub fn new(regions: Vec<MemoryRegion<M>>) -> Result<Self, MemoryError> {
        if regions.len() > MAX_SLOTS {
            return Err(MemoryError::TooMany);
        }
        for (index, region) in regions.iter().enumerate() {
            if !region.is_range() {
                return Err(MemoryError::BadRange(index));
            }
            let before = regions[..index].iter();
            if let Some(other) = before.enumerate().find(|(_, other)| region.overlaps(other)) {
                return Err(MemoryError::Overlap(other.0, index));
            }
        }
        Ok(Self(regions))
    }

    /// The regions, in the order of the message.
    pub fn regions(&self) -> &[MemoryRegion<M>] {
        &self.0
    }

    /// Turns the table into its regions, in the order of the message.
    pub fn into_regions(self) -> Vec<MemoryRegion<M>> {
        self.0
    }

    /// Replaces each region by the result of `change`, which may change only the field `memory`.
    ///
    /// # Errors
    ///
    /// The first error of `change`.
    pub fn try_map<N, E>(
        self,
        mut change: impl FnMut(MemoryRegion<M>) -> Result<MemoryRegion<N>, E>,
    ) -> Result<MemoryTable<N>, E> {
        let regions = self.0.into_iter().map(&mut change);
        regions.collect::<Result<_, _>>().map(MemoryTable)
    }
}

impl<M: Clone> MemoryTable<M> {
    /// A copy of the table with one more region.
    ///
    /// # Errors
    ///
    /// [`MemoryError`].
    pub fn with(&self, region: MemoryRegion<M>) -> Result<Self, MemoryError> {
        Self::new(self.0.iter().cloned().chain([region]).collect())
    }

    /// A copy of the table without the region that has the addresses and the size of `region`.
    ///
    /// # Errors
    ///
    /// [`MemoryError::NoSuchRegion`].
    pub fn without<N>(&self, region: &MemoryRegion<N>) -> Result<Self, MemoryError> {
        let (guest, user, size) = (region.guest_addr, region.user_addr, region.size);
        let kept = self
            .0
            .iter()
            .filter(|known| !known.is_at(guest, user, size));
        let kept: Vec<_> = kept.cloned().collect();
        if kept.len() == self.0.len() {
            return Err(MemoryError::NoSuchRegion(guest));
        }
        Ok(Self(kept))
    }
}

impl MemoryTable<Arc<Region>> {
    /// Translates a user address, which is a virtual address of the front-end process, into a
    /// guest-physical address. `None` means that the address is in no region.
    pub fn translate(&self, user_addr: u64) -> Option<GuestAddress> {
        self.0.iter().find_map(|region| {
            let offset = user_addr.checked_sub(region.user_addr)?;
            (offset < region.size).then(|| GuestAddress(region.guest_addr + offset))
        })
    }
}

#[cfg(test)]
mod tests;
