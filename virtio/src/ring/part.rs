//! An array of numbers in the driver's memory.
//!
//! The array's address in this process is usually looked up only once. Each access is one atomic
//! load or store, because the driver may write at any time. This file has all unsafe code of rings.

#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::{AtomicAccess, AtomicInteger, Bytes, GuestAddress, Permissions};

use super::place::Place;
use crate::{GuestMemory, QueueError};

/// An array of numbers in the driver's memory. The device may write the numbers only if `WRITABLE`
/// is true.
#[derive(Debug)]
pub(super) struct Part<T, const WRITABLE: bool = false> {
    memory: Arc<GuestMemory>,
    addr: u64,
    len: usize,
    /// Where the array is in this process. The array has `len` numbers, and begins at the driver's
    /// address `addr`.
    place: Place<T>,
}

/// An array that the device may read and write.
pub(super) type WritablePart<T> = Part<T, true>;

// SAFETY: only the pointers in `place` prevent an automatic `Send`. These pointers point into
// `memory`, which several threads may share, and only atomic accesses use the pointers.
unsafe impl<T, const WRITABLE: bool> Send for Part<T, WRITABLE> {}

impl<T: AtomicAccess, const WRITABLE: bool> Part<T, WRITABLE> {
    /// An array that begins at the driver's address `addr`. Its length `len` is at least 1. `None`
    /// if some of the numbers are not in memory, or the memory does not allow the device to read
    /// them, or to write them if `WRITABLE` is true.
    pub fn new(memory: &Arc<GuestMemory>, addr: u64, len: usize) -> Option<Self> {
        let access = match WRITABLE {
            true => Permissions::ReadWrite,
            false => Permissions::Read,
        };
        let bytes = len * size_of::<T>();
        Some(Self {
            place: Place::find(memory, GuestAddress(addr), bytes, access)?,
            memory: memory.clone(),
            addr,
            len,
        })
    }

    /// Loads the number at `index`.
    ///
    /// # Panics
    ///
    /// When the index is not inside the array.
    #[inline]
    pub fn load(&self, index: usize, order: Ordering) -> Result<T, QueueError> {
        match self.fixed(index) {
            Some(atomic) => Ok(atomic.load(order).into()),
            None => self.load_elsewhere(index, order),
        }
    }

    #[inline(never)]
    fn load_elsewhere(&self, index: usize, order: Ordering) -> Result<T, QueueError> {
        match self.in_page(index) {
            Some(atomic) => Ok(atomic.load(order).into()),
            None => Ok(self.memory.load(self.address(index), order)?),
        }
    }

    /// The number at `index`, if the array is contiguous at a fixed address in this process.
    #[inline]
    fn fixed(&self, index: usize) -> Option<&T::A> {
        assert!(index < self.len, "entry {index} of {}", self.len);
        let Place::Fixed(first) = self.place else {
            return None;
        };
        // SAFETY: `Place::find` found that all `len` numbers are contiguous from `first` on, and
        // `index` is below `len`. The comment in `atomic` shows the other conditions.
        Some(unsafe { self.atomic(first.add(index)) })
    }

    /// The number at `index`, if `Place::find` found the array page by page, and no page has moved
    /// since.
    fn in_page(&self, index: usize) -> Option<&T::A> {
        assert!(index < self.len, "entry {index} of {}", self.len);
        let Place::Pages(pages) = &self.place else {
            return None;
        };
        let place = pages.at(index * size_of::<T>())?.cast();
        // SAFETY: `Place::find` found the page and all of the array's numbers in the page. The
        // number at `index` is one of these numbers.
        Some(unsafe { self.atomic(place) })
    }

    /// # Safety
    ///
    /// `place` has to be an address at which `Place::find` found a number of the array.
    #[inline]
    unsafe fn atomic(&self, place: NonNull<T>) -> &T::A {
        // SAFETY: `place` is aligned, and in a region of `memory` that is mapped for this access.
        // `self` holds `memory`, so the region stays mapped, even after the driver's address has
        // been unmapped. An atomic integer has the same layout as its number. All references to the
        // driver's memory are references to atomics. Other writes to this number come from another
        // process, from the kernel, from atomic accesses of this process, or, if the driver places
        // a buffer over the ring, from copies through volatile slices.
        unsafe { place.cast::<T::A>().as_ref() }
    }

    fn address(&self, index: usize) -> GuestAddress {
        // The sum cannot overflow, because `new` checked the end of the array.
        GuestAddress(self.addr + (index * size_of::<T>()) as u64)
    }
}

impl<T: AtomicAccess> WritablePart<T> {
    /// Stores a number at `index`.
    ///
    /// # Panics
    ///
    /// When the index is not inside the array.
    #[inline]
    pub fn store(&self, index: usize, value: T, order: Ordering) -> Result<(), QueueError> {
        match self.fixed(index) {
            Some(atomic) => {
                atomic.store(value.into(), order);
                Ok(())
            }
            None => self.store_elsewhere(index, value, order),
        }
    }

    #[inline(never)]
    fn store_elsewhere(&self, index: usize, value: T, order: Ordering) -> Result<(), QueueError> {
        match self.in_page(index) {
            Some(atomic) => {
                atomic.store(value.into(), order);
                Ok(())
            }
            None => Ok(self.memory.store(value, self.address(index), order)?),
        }
    }
}
