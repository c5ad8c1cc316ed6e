//! Where a part of a ring is in this process.

use std::ptr::NonNull;
use std::sync::Arc;

use vm_memory::bitmap::BS;
use vm_memory::{GuestAddress, Permissions, VolatileSlice};

use crate::GuestMemory;
use crate::memory::Watch;

/// Addresses are translated in units of this many bytes, or in multiples of it.
const PAGE: usize = 4096;

/// Where an array of numbers is in this process, found once instead of at each access.
#[derive(Debug)]
pub(super) enum Place<T> {
    /// The array begins here, and is in one piece as long as the memory is there.
    Fixed(NonNull<T>),
    /// The array is in whole pages.
    Pages(Box<Pages>),
    /// The array is in other pieces, so that each access has to look its number up.
    Scattered,
}

/// Whole pages, each of which may be anywhere.
#[derive(Debug)]
pub(super) struct Pages {
    /// Holds as long as the pages are where they were found. `None`: they never move.
    watch: Option<Arc<Watch>>,
    /// Where in the first page the array begins, in bytes.
    skip: usize,
    /// Where each page begins. Of the first and last one, only the array's part is known to be
    /// memory.
    starts: Box<[*mut u8]>,
}

impl<T> Place<T> {
    /// Where the `bytes` bytes of an array from `start` on are. `None` when they are not all in
    /// memory that is for this access.
    pub fn find(
        memory: &GuestMemory,
        start: GuestAddress,
        bytes: usize,
        access: Permissions,
    ) -> Option<Self> {
        let last = start.0.checked_add(bytes as u64 - 1)?;
        // The watch comes first: it sees all that changes while the places are found.
        let watch = memory.watch(start.0, last);
        let slices = memory.slices(start, bytes, access).ok()?;
        let slices: Vec<_> = slices.collect::<Result<_, _>>().ok()?;
        if let (None, [slice]) = (&watch, &slices[..]) {
            let first = NonNull::new(slice.ptr_guard_mut().as_ptr().cast::<T>());
            let first = first.filter(|first| first.is_aligned());
            return Some(first.map_or(Self::Scattered, Self::Fixed));
        }
        let starts = page_starts::<T>(start.0, &slices);
        Some(starts.map_or(Self::Scattered, |starts| {
            let skip = (start.0 % PAGE as u64) as usize;
            Self::Pages(Box::new(Pages {
                watch,
                skip,
                starts,
            }))
        }))
    }
}

impl Pages {
    /// Where the byte at `offset` of the array is. `None` when that has changed, so that it has to
    /// be looked up.
    pub fn at(&self, offset: usize) -> Option<NonNull<u8>> {
        if self.watch.as_ref().is_some_and(|watch| !watch.holds()) {
            return None;
        }
        let at = self.skip + offset;
        let start = self.starts.get(at / PAGE)?;
        NonNull::new(start.wrapping_add(at % PAGE))
    }
}

/// Where the pages of an array begin that is in these slices. `None` when a page is in several, or
/// a number is not aligned.
fn page_starts<T>(start: u64, slices: &[VolatileSlice<'_, BS<'_, ()>>]) -> Option<Box<[*mut u8]>> {
    let mut starts = Vec::new();
    let mut skip = (start % PAGE as u64) as usize;
    for slice in slices {
        // Only the array itself may begin inside a page.
        if skip != 0 && !starts.is_empty() {
            return None;
        }
        let page = slice.ptr_guard_mut().as_ptr().wrapping_sub(skip);
        let end = skip + slice.len();
        starts.extend((0..end).step_by(PAGE).map(|at| page.wrapping_add(at)));
        skip = end % PAGE;
    }
    let aligned = |page: &*mut u8| page.cast::<T>().is_aligned();
    let aligned = start.is_multiple_of(size_of::<T>() as u64) && starts.iter().all(aligned);
    aligned.then(|| starts.into())
}
