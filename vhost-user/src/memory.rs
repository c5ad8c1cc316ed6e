//! The front-end's memory, as its messages describe it.

use std::sync::Arc;

use virtio::Region;
use vm_memory::GuestAddress;

use crate::payload::{Fields, PayloadError};

/// The most regions that there may be at a time: as many as other back-ends take.
pub const MAX_SLOTS: usize = 509;

/// A region of a front-end's memory, and what gives access to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRegion<M> {
    /// Its first guest-physical address.
    pub guest_addr: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Where its first byte is in the front-end's own address space, in which vring addresses are.
    pub user_addr: u64,
    /// Where its first byte is in its file, in bytes.
    pub file_offset: u64,
    /// A descriptor of its file; or the mapped memory.
    pub memory: M,
}

impl<M> MemoryRegion<M> {
    /// The same region, with another way to its memory.
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

    /// Whether two ranges have guest-physical addresses in common, or addresses of the front-end.
    fn overlaps(&self, other: &Self) -> bool {
        let meet = |one: u64, two: u64| one < two + other.size && two < one + self.size;
        meet(self.guest_addr, other.guest_addr) || meet(self.user_addr, other.user_addr)
    }

    fn is_at(&self, guest_addr: u64, user_addr: u64, size: u64) -> bool {
        (self.guest_addr, self.user_addr, self.size) == (guest_addr, user_addr, size)
    }
}

/// Why regions cannot be a front-end's memory.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryError {
    /// A region has no bytes, or its addresses do not fit 64 bits.
    #[error("memory region {0} is empty or wraps around")]
    BadRange(usize),
    /// Two regions have addresses in common.
    #[error("memory regions {0} and {1} overlap")]
    Overlap(usize, usize),
    /// There are too many.
    #[error("there would be more than {MAX_SLOTS} memory regions")]
    TooMany,
    /// A region that is to go is not there.
    #[error("there is no such memory region at {0:#x}")]
    NoSuchRegion(u64),
}

/// Regions that can be a front-end's memory: at most [`MAX_SLOTS`], none empty, none that wraps
/// around, and no two with addresses in common, be they the guest's or the front-end's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryTable<M>(Vec<MemoryRegion<M>>);

impl<M> Default for MemoryTable<M> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<M> MemoryTable<M> {
    /// Checks regions.
    ///
    /// # Errors
    ///
    /// [`MemoryError`], which counts the regions from 0.
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

    /// The regions, to be kept.
    pub fn into_regions(self) -> Vec<MemoryRegion<M>> {
        self.0
    }

    /// The same regions, with another way to the memory of each.
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
    /// The table with one more region.
    ///
    /// # Errors
    ///
    /// [`MemoryError`].
    pub fn with(&self, region: MemoryRegion<M>) -> Result<Self, MemoryError> {
        Self::new(self.0.iter().cloned().chain([region]).collect())
    }

    /// The table without the region that has these addresses and this size.
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
    /// Where an address of the front-end's own address space is in the guest's.
    pub fn translate(&self, user_addr: u64) -> Option<GuestAddress> {
        self.0.iter().find_map(|region| {
            let offset = user_addr.checked_sub(region.user_addr)?;
            (offset < region.size).then(|| GuestAddress(region.guest_addr + offset))
        })
    }
}

#[cfg(test)]
mod tests;
