//! An array of numbers in the driver's memory.
//!
//! Its place is looked up once, and an access is then one load or store. All of them are atomic,
//! because the driver may write at any time. All unsafe code of rings is here.

#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::{AtomicAccess, AtomicInteger, Bytes, GuestAddress, Permissions};

use super::place::Place;
use crate::{GuestMemory, QueueError};

/// An array of numbers in the driver's memory, which the device may only write if it is `WRITABLE`.
#[derive(Debug)]
pub(super) struct Part<T, const WRITABLE: bool = false> {
    memory: Arc<GuestMemory>,
    addr: u64,
    len: usize,
    /// Found in `memory`, for `len` numbers from `addr` on.
    place: Place<T>,
}

/// An array that the device may write as well.
pub(super) type WritablePart<T> = Part<T, true>;

// SAFETY: only the pointers of `place` keep it from being `Send` by itself. They lead into
// `memory`, which is shared among threads anyway, and are used for atomic accesses alone.
unsafe impl<T, const WRITABLE: bool> Send for Part<T, WRITABLE> {}

impl<T: AtomicAccess, const WRITABLE: bool> Part<T, WRITABLE> {
    /// `len` numbers, at least one, at `addr`. `None` when they are not all in memory that the
    /// device may access so.
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

    /// The number at `index`, if the array never moves.
    #[inline]
    fn fixed(&self, index: usize) -> Option<&T::A> {
        assert!(index < self.len, "entry {index} of {}", self.len);
        let Place::Fixed(first) = self.place else {
            return None;
        };
        // SAFETY: `Place::find` found all `len` numbers there, in one piece, and `index` is below
        // `len`. For the rest, see `atomic`.
        Some(unsafe { self.atomic(first.add(index)) })
    }

    /// The number at `index`, if its page is where it was found.
    fn in_page(&self, index: usize) -> Option<&T::A> {
        assert!(index < self.len, "entry {index} of {}", self.len);
        let Place::Pages(pages) = &self.place else {
            return None;
        };
        let place = pages.at(index * size_of::<T>())?.cast();
        // SAFETY: `Place::find` found the page with all of the array's numbers in it, of which
        // `index` is one.
        Some(unsafe { self.atomic(place) })
    }

    /// # Safety
    ///
    /// `place` is one of those that `Place::find` found for the array.
    #[inline]
    unsafe fn atomic(&self, place: NonNull<T>) -> &T::A {
        // SAFETY: `place` is aligned, and in a region of `memory` that is mapped for this access.
        // The region stays mapped as long as `memory`, which `self` holds, also when the address
        // has lost its meaning by now. An atomic integer is laid out like its number. No reference
        // but those to atomics leads there, because memory of the driver is never behind any other.
        // Whoever else writes there is another process, the kernel, or an atomic access of this
        // process.
        unsafe { place.cast::<T::A>().as_ref() }
    }

    fn address(&self, index: usize) -> GuestAddress {
        // It does not wrap, as `new` checked.
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
