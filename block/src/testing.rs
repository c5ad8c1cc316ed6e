//! A way into a queue's ring, for tests of what it refuses.

#![allow(unsafe_code)]

use std::io;

use io_uring::squeue;

use crate::BlockDevice;

/// The result of an operation in the ring of queue 0, which belongs to the calling thread from now
/// on: a number, or a negated errno.
///
/// # Errors
///
/// When there is no ring, or the kernel does not take the entry.
///
/// # Safety
///
/// What the entry points to must be valid until this returns.
pub unsafe fn in_ring(device: &BlockDevice, entry: &squeue::Entry) -> io::Result<i32> {
    let mut slot = device.rings[0].lock();
    let lent = slot.enable()?.ok_or(io::ErrorKind::NotFound)?;
    // SAFETY: as the caller promises, and the entry is waited for.
    let pushed = unsafe { lent.ring.submission().push(entry) };
    pushed.map_err(io::Error::other)?;
    lent.ring.submit_and_wait(1)?;
    let result = lent.ring.completion().next();
    result
        .map(|entry| entry.result())
        .ok_or(io::ErrorKind::NotFound.into())
}
