//! An array of numbers in the driver's memory.
//!
//! Where it lies in one piece and stays there, its place in this process is looked up once; an
//! access is then one load or store. All of them are atomic, as the driver may write at any time.
//! This is the only module of the crate with unsafe code, apart from what tests use.

#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::{AtomicAccess, AtomicInteger, Bytes, GuestAddress, GuestMemory as _, Permissions};

use crate::{GuestMemory, QueueError};

/// An array of numbers in the driver's memory.
#[derive(Debug)]
pub(super) struct Part<T> {
    memory: Arc<GuestMemory>,
    addr: u64,
    len: usize,
    /// Where it is in this process, if that is one place for as long as the memory is there.
    place: Option<NonNull<T>>,
}

// SAFETY: `place` points into `memory`, which is shared among threads anyway, and is only used for
// atomic accesses.
unsafe impl<T> Send for Part<T> {}

impl<T: AtomicAccess> Part<T> {
    /// `len` numbers at `addr`; `None` when they are not all inside memory.
    pub(super) fn new(memory: &Arc<GuestMemory>, addr: u64, len: usize) -> Option<Self> {
        let bytes = len * size_of::<T>();
        let start = GuestAddress(addr);
        if !memory.check_range(start, bytes, Permissions::Read) {
            return None;
        }
        let place = memory.place(start, bytes).and_then(NonNull::new);
        Some(Self {
            memory: memory.clone(),
            addr,
            len,
            place: place.map(NonNull::cast::<T>).filter(|p| p.is_aligned()),
        })
    }

    pub(super) fn load(&self, index: usize, order: Ordering) -> Result<T, QueueError> {
        match self.atomic(index) {
            Some(atomic) => Ok(atomic.load(order).into()),
            None => Ok(self.memory.load(self.address(index), order)?),
        }
    }

    pub(super) fn store(&self, index: usize, value: T, order: Ordering) -> Result<(), QueueError> {
        match self.atomic(index) {
            Some(atomic) => {
                atomic.store(value.into(), order);
                Ok(())
            }
            None => Ok(self.memory.store(value, self.address(index), order)?),
        }
    }

    fn atomic(&self, index: usize) -> Option<&T::A> {
        assert!(index < self.len, "entry {index} of {}", self.len);
        let place = self.place?;
        // SAFETY: `place` begins `len` aligned numbers that stay mapped as long as `memory`, which
        // `self` holds; the index is below `len`; an atomic integer is laid out like its number;
        // and others who write there are other processes, or the kernel for them.
        Some(unsafe { place.add(index).cast::<T::A>().as_ref() })
    }

    fn address(&self, index: usize) -> GuestAddress {
        // In range, as `new` checked.
        GuestAddress(self.addr + (index * size_of::<T>()) as u64)
    }
}
