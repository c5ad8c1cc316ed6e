//! The translation of a driver's addresses, for a driver behind an IOMMU.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use vm_memory::guest_memory::{Error as MemoryError, Result as MemoryResult};
use vm_memory::{GuestAddress, Permissions};

use super::slices::Piece;
use super::watch::{Watch, Watches};

/// The maximum number of mappings in a [`Translation`]. [`Translation::map`] merges a new mapping
/// with the mapping that ends directly before it, if the targets are adjacent as well and the
/// accesses are the same. Merged mappings count as one mapping.
pub const MAX_MAPPINGS: usize = 32 * 1024;

/// A table of mappings from the driver's addresses to the regions' own addresses. One thread
/// changes the table while other threads look addresses up.
///
/// The driver of a virtual machine's IOMMU adds and removes thousands of mappings, page by page. To
/// make changes cheap, the table is a tree behind a lock. To make accesses cheap, queues keep the
/// results of their look-ups. A queue keeps the results for its rings until one of the rings'
/// addresses is unmapped, and the results for a chain's buffers while the chain is in flight.
///
/// # Taking memory away
///
/// To take a range of addresses away from a device, the owner of the translation performs these
/// steps one after another:
///
/// 1. It stops each queue whose rings overlap the range ([`VringLayout::overlaps`]) or whose chains
///    in flight overlap the range ([`GuestMemory::is_in_use`]).
/// 2. It calls [`Translation::unmap`].
/// 3. It checks the remaining queues again, and stops each queue that has taken a chain with
///    buffers in the range in the meantime.
///
/// After these steps no queue accesses buffers or rings in the range. A queue first records a
/// chain's buffers, and then looks up their addresses. The queue does both under the lock that
/// `is_in_use` takes. If the queue records the buffers before the third step, the third step finds
/// the record and stops the queue. If the queue records the buffers after the third step, the
/// look-up comes after the `unmap`, and finds no memory. The look-ups of a queue that is started
/// after the `unmap` find no memory either.
///
/// Indirect tables are an exception, because a queue reads an indirect table before it records the
/// buffers. If the driver takes the table's memory away while the queue reads the table, the queue
/// may still read the memory to which the table's addresses were mapped before.
///
/// Memory safety does not depend on these steps. Regions stay mapped into this process as long as a
/// [`GuestMemory`] has them, and a queue keeps its `GuestMemory`. So an access that comes after the
/// `unmap` still reaches the driver's memory, and not other memory of this process.
///
/// [`GuestMemory`]: super::GuestMemory
/// [`GuestMemory::is_in_use`]: super::GuestMemory::is_in_use
/// [`VringLayout::overlaps`]: crate::VringLayout::overlaps
#[derive(Debug, Default)]
pub struct Translation(RwLock<Table>);

#[derive(Debug, Default)]
struct Table {
    mappings: Mappings,
    watches: Watches,
}

/// All mappings of a translation. The key is the driver's address at which a mapping starts.
#[derive(Debug, Default)]
pub(super) struct Mappings(BTreeMap<u64, Mapping>);

/// A mapping from a range of the driver's addresses to the regions' own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Length of the range in bytes, not 0.
    pub size: u64,
    /// The start of the range in the regions' own addresses. `None` if the range is reserved, but
    /// has no memory.
    pub target: Option<GuestAddress>,
    /// The accesses that the range allows.
    pub access: Permissions,
}

/// The reason for which a mapping was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// The range is empty, or the last address of the range or of the range's target does not fit
    /// 64 bits.
    #[error("range is empty or wraps around")]
    BadRange,
    /// A part of the range is already mapped.
    #[error("range overlaps an existing mapping")]
    Overlap,
    /// The translation already has [`MAX_MAPPINGS`] mappings.
    #[error("more than {MAX_MAPPINGS} ranges")]
    Full,
}

impl Translation {
    /// Adds a mapping of the driver's addresses from `start` on.
    ///
    /// # Errors
    ///
    /// [`MapError`]. The translation is then unchanged.
    pub fn map(&self, start: u64, mapping: Mapping) -> Result<(), MapError> {
        // All watches stay valid, because addresses that are already mapped keep their targets.
        self.write().mappings.add(start, mapping)
    }

    /// Removes the addresses `first..=last` from all mappings. The documentation of [`Translation`]
    /// lists the necessary steps before and after this call.
    pub fn unmap(&self, first: u64, last: u64) {
        let mut table = self.write();
        table.mappings.remove(first, last);
        table.watches.break_in(first, last);
    }

    /// Whether any mapping satisfies the condition.
    pub fn any(&self, condition: impl FnMut(&Mapping) -> bool) -> bool {
        self.read().mappings.0.values().any(condition)
    }

    /// Number of mappings.
    pub fn len(&self) -> usize {
        self.read().mappings.0.len()
    }

    /// Whether the translation has no mappings.
    pub fn is_empty(&self) -> bool {
        self.read().mappings.0.is_empty()
    }

    /// Begins to watch whether the addresses `first..=last` stay mapped. The caller has to begin
    /// the watch before it looks the addresses up.
    pub(super) fn watch(&self, first: u64, last: u64) -> Arc<Watch> {
        self.write().watches.begin(first, last)
    }

    /// Calls a function with the mappings. The mappings do not change during the call.
    pub(super) fn with<T>(&self, user: impl FnOnce(&Mappings) -> T) -> T {
        user(&self.read().mappings)
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mappings {
    fn add(&mut self, start: u64, mapping: Mapping) -> Result<(), MapError> {
        let last = mapping.size.checked_sub(1);
        let last = last.and_then(|length| start.checked_add(length));
        let last = last.ok_or(MapError::BadRange)?;
        let target = mapping.target.map(|target| target.0);
        if target.is_some_and(|target| target.checked_add(mapping.size - 1).is_none()) {
            return Err(MapError::BadRange);
        }
        let before = self.0.range_mut(..=last).next_back();
        if let Some((at, before)) = before {
            if at + (before.size - 1) >= start {
                return Err(MapError::Overlap);
            }
            // Two mappings that together cover all 2^64 addresses are not merged, because the size
            // of the merged mapping does not fit 64 bits.
            let size = before.size.checked_add(mapping.size);
            if let Some(size) = size
                && at + before.size == start
                && before.continues_in(&mapping)
            {
                before.size = size;
                return Ok(());
            }
        }
        if self.0.len() >= MAX_MAPPINGS {
            return Err(MapError::Full);
        }
        self.0.insert(start, mapping);
        Ok(())
    }

    fn remove(&mut self, first: u64, last: u64) {
        while let Some((at, mapping)) = self.take_overlapping(first, last) {
            let end = at + (mapping.size - 1);
            if at < first {
                self.0.insert(at, mapping.part(0, first - at));
            }
            if end > last {
                self.0
                    .insert(last + 1, mapping.part(last + 1 - at, end - last));
            }
        }
    }

    fn take_overlapping(&mut self, first: u64, last: u64) -> Option<(u64, Mapping)> {
        let (&at, mapping) = self.0.range(..=last).next_back()?;
        if at + (mapping.size - 1) < first {
            return None;
        }
        self.0.remove(&at).map(|mapping| (at, mapping))
    }

    /// The pieces of memory that together make up the `count` bytes from `addr` on, and the
    /// accesses that each piece allows. The iterator ends after the first error.
    pub fn pieces(
        &self,
        addr: GuestAddress,
        count: usize,
    ) -> impl Iterator<Item = MemoryResult<(Piece, Permissions)>> + '_ {
        let mut next = Some(addr);
        let mut missing = count;
        std::iter::from_fn(move || {
            if missing == 0 {
                return None;
            }
            let found = next.ok_or(MemoryError::GuestAddressOverflow);
            let found = found.and_then(|addr| self.piece(addr, missing));
            match &found {
                Ok((piece, _)) => {
                    missing -= piece.len;
                    next = next
                        .and_then(|addr| addr.0.checked_add(piece.len as u64))
                        .map(GuestAddress);
                }
                Err(_) => missing = 0,
            }
            Some(found)
        })
    }

    /// The first piece of the range of `count` bytes from `addr` on, up to the end of one mapping,
    /// and the accesses that the mapping allows.
    fn piece(&self, addr: GuestAddress, count: usize) -> MemoryResult<(Piece, Permissions)> {
        let found = self.0.range(..=addr.0).next_back();
        let found = found.filter(|(start, mapping)| addr.0 - *start < mapping.size);
        let (start, mapping) = found.ok_or(MemoryError::InvalidGuestAddress(addr))?;
        let target = mapping
            .target
            .ok_or(MemoryError::InvalidGuestAddress(addr))?;
        let offset = addr.0 - start;
        let rest = usize::try_from(mapping.size - offset).unwrap_or(usize::MAX);
        let piece = Piece {
            addr: GuestAddress(target.0 + offset),
            len: count.min(rest),
        };
        Ok((piece, mapping.access))
    }
}

impl Mapping {
    /// Whether the target of `next` begins at the end of this mapping's target, and both mappings
    /// allow the same accesses. The caller has to check that the driver's addresses of the two
    /// mappings are adjacent as well.
    fn continues_in(&self, next: &Self) -> bool {
        let follows = match (self.target, next.target) {
            (Some(target), Some(next)) => target.0.checked_add(self.size) == Some(next.0),
            (None, None) => true,
            _ => false,
        };
        follows && self.access == next.access
    }

    fn part(&self, offset: u64, size: u64) -> Self {
        Self {
            size,
            target: self.target.map(|target| GuestAddress(target.0 + offset)),
            access: self.access,
        }
    }
}

#[cfg(test)]
mod tests;
