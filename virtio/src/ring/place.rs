//! The address of a part of a ring in this process.

use std::ptr::NonNull;
use std::sync::Arc;

use vm_memory::bitmap::BS;
use vm_memory::{GuestAddress, Permissions, VolatileSlice};

use crate::GuestMemory;
use crate::memory::Watch;

/// The size of the smallest page that an IOMMU translates, in bytes. The sizes of larger pages are
/// multiples of this size.
const PAGE: usize = 4096;

/// Where an array of numbers is in this process. This is looked up in advance, so that most
/// accesses need no look-up.
#[derive(Debug)]
pub(super) enum Place<T> {
    /// The array is contiguous, and begins at this pointer. The array does not move as long as its
    /// `GuestMemory` lives.
    Fixed(NonNull<T>),
    /// The array is split only at page boundaries. Each page has its own address.
    Pages(Box<Pages>),
    /// The array is also split inside a page, or its numbers are not aligned in this process. Each
    /// access has to look up the address of the accessed number.
    Scattered,
}

/// The addresses of the pages that hold an array.
#[derive(Debug)]
pub(super) struct Pages {
    /// The watch over the array's addresses. The pointers in `starts` are valid until one of these
    /// addresses is unmapped. `None` if the pages never move.
    watch: Option<Arc<Watch>>,
    /// The offset of the array in its first page, in bytes.
    skip: usize,
    /// A pointer to the start of each page. In the first and the last page, only the bytes of the
    /// array are known to be mapped.
    starts: Box<[*mut u8]>,
}

impl<T> Place<T> {
    /// Finds an array of `bytes` bytes that begins at the driver's address `start`. `None` if some
    /// of the bytes are not in memory, or the memory does not allow the access.
    pub fn find(
        memory: &GuestMemory,
        start: GuestAddress,
        bytes: usize,
        access: Permissions,
    ) -> Option<Self> {
        let last = start.0.checked_add(bytes as u64 - 1)?;
        // The watch has to begin before the look-up, so that the watch notices each change during
        // the look-up.
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
    /// A pointer to the byte at `offset` of the array. `None` if the pages may have moved. The
    /// caller then has to look the byte up.
    pub fn at(&self, offset: usize) -> Option<NonNull<u8>> {
        if self.watch.as_ref().is_some_and(|watch| !watch.holds()) {
            return None;
        }
        let at = self.skip + offset;
        let start = self.starts.get(at / PAGE)?;
        NonNull::new(start.wrapping_add(at % PAGE))
    }
}

/// Returns a pointer to the start of each page that holds a part of an array. `slices` are the
/// parts of the array, and `start` is the array's address. `None` if a page is split between
/// slices, or a number is not aligned.
fn page_starts<T>(start: u64, slices: &[VolatileSlice<'_, BS<'_, ()>>]) -> Option<Box<[*mut u8]>> {
    let mut starts = Vec::new();
    let mut skip = (start % PAGE as u64) as usize;
    for slice in slices {
        // Only the first slice may begin inside a page. All other slices have to begin at a page
        // boundary.
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
