//! What the addresses mean that a driver behind an IOMMU uses.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use vm_memory::guest_memory::{Error as MemoryError, Result as MemoryResult};
use vm_memory::{GuestAddress, Permissions};

use super::slices::Piece;

/// The most mappings there are at a time. Neighbours on both sides count as one.
pub const MAX_MAPPINGS: usize = 32 * 1024;

/// A table of mappings that one thread changes while others use it.
///
/// Behind an IOMMU of a virtual machine, mappings come and go by the thousand, page by page.
#[derive(Debug, Default)]
pub struct Translation(RwLock<Mappings>);

type Mappings = BTreeMap<u64, Mapping>;

/// What a range of addresses means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Length in bytes, not 0.
    pub size: u64,
    /// Where the range begins in the regions' own addresses. `None`: it is nowhere, but taken.
    pub target: Option<GuestAddress>,
    /// What may be done there.
    pub access: Permissions,
}

/// Why a range was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// It is empty or ends behind the last address.
    #[error("range is empty or wraps around")]
    BadRange,
    /// Part of it means something already.
    #[error("range overlaps another one")]
    Overlap,
    /// There are [`MAX_MAPPINGS`] already.
    #[error("more than {MAX_MAPPINGS} ranges")]
    Full,
}

impl Translation {
    /// Adds a mapping of addresses from `start` on.
    ///
    /// # Errors
    ///
    /// [`MapError`]; nothing was changed then.
    pub fn map(&self, start: u64, mapping: Mapping) -> Result<(), MapError> {
        let last = mapping.size.checked_sub(1);
        let last = last.and_then(|length| start.checked_add(length));
        let last = last.ok_or(MapError::BadRange)?;
        let mut mappings = self.write();
        let before = mappings.range_mut(..=last).next_back();
        let Some((at, before)) = before else {
            return insert(&mut mappings, start, mapping);
        };
        if at + (before.size - 1) >= start {
            return Err(MapError::Overlap);
        }
        if at + before.size == start && before.continues_in(&mapping) {
            before.size += mapping.size;
            return Ok(());
        }
        insert(&mut mappings, start, mapping)
    }

    /// Takes what there is of the addresses `first..=last` away.
    pub fn unmap(&self, first: u64, last: u64) {
        let mut mappings = self.write();
        while let Some((at, mapping)) = take_overlapping(&mut mappings, first, last) {
            let end = at + (mapping.size - 1);
            if at < first {
                mappings.insert(at, mapping.part(0, first - at));
            }
            if end > last {
                mappings.insert(last + 1, mapping.part(last + 1 - at, end - last));
            }
        }
    }

    /// Whether any mapping satisfies this.
    pub fn any(&self, condition: impl FnMut(&Mapping) -> bool) -> bool {
        self.read().values().any(condition)
    }

    /// Number of mappings.
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// True when there is not a single mapping.
    pub fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    /// The pieces that make up a range: the first one, and then the others, if any.
    pub(super) fn translate(
        &self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> MemoryResult<(Piece, Vec<Piece>)> {
        let mappings = self.read();
        let first = piece(&mappings, addr, count, access)?;
        let mut rest = Vec::new();
        let mut done = first.len;
        while done < count {
            let next = addr.0.checked_add(done as u64);
            let next = next.ok_or(MemoryError::GuestAddressOverflow)?;
            let piece = piece(&mappings, GuestAddress(next), count - done, access)?;
            done += piece.len;
            rest.push(piece);
        }
        Ok((first, rest))
    }

    fn read(&self) -> RwLockReadGuard<'_, Mappings> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Mappings> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mapping {
    /// Whether `next`, whose addresses follow, also follows on the other side.
    fn continues_in(&self, next: &Self) -> bool {
        let target = self.target.map(|target| target.0.wrapping_add(self.size));
        target == next.target.map(|target| target.0) && self.access == next.access
    }

    fn part(&self, offset: u64, size: u64) -> Self {
        Self {
            size,
            target: self.target.map(|target| GuestAddress(target.0 + offset)),
            access: self.access,
        }
    }
}

fn insert(mappings: &mut Mappings, start: u64, mapping: Mapping) -> Result<(), MapError> {
    if mappings.len() >= MAX_MAPPINGS {
        return Err(MapError::Full);
    }
    mappings.insert(start, mapping);
    Ok(())
}

fn take_overlapping(mappings: &mut Mappings, first: u64, last: u64) -> Option<(u64, Mapping)> {
    let (&at, mapping) = mappings.range(..=last).next_back()?;
    if at + (mapping.size - 1) < first {
        return None;
    }
    mappings.remove(&at).map(|mapping| (at, mapping))
}

/// As much of a range as lies in one mapping.
fn piece(
    mappings: &Mappings,
    addr: GuestAddress,
    count: usize,
    access: Permissions,
) -> MemoryResult<Piece> {
    let nowhere = MemoryError::InvalidGuestAddress(addr);
    let Some((start, mapping)) = mappings.range(..=addr.0).next_back() else {
        return Err(nowhere);
    };
    let offset = addr.0 - start;
    let allowed = mapping.access as u8 & access as u8 == access as u8;
    match mapping.target {
        Some(target) if offset < mapping.size && allowed => Ok(Piece {
            addr: GuestAddress(target.0 + offset),
            len: count.min(usize::try_from(mapping.size - offset).unwrap_or(usize::MAX)),
        }),
        _ => Err(nowhere),
    }
}
