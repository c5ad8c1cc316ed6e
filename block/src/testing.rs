//! Access to the io_uring of a queue, for tests of the io_uring's restrictions.

#![allow(unsafe_code)]

use std::io;

use io_uring::squeue;

use crate::BlockDevice;

/// Carries out an operation in the io_uring of queue 0. Returns the result of the operation, which
/// is a number or a negated errno. Only the thread that makes the first call can make later calls,
/// or use the io_uring in any other way.
///
/// # Errors
///
/// When the queue has no io_uring, or the kernel refuses the entry.
///
/// # Safety
///
/// The memory that the entry points to must be valid until this function returns.
pub unsafe fn in_ring(device: &BlockDevice, entry: &squeue::Entry) -> io::Result<i32> {
    let mut slot = device.rings[0].lock();
    let lent = slot.enable()?.ok_or(io::ErrorKind::NotFound)?;
    // SAFETY: the caller promises valid memory until this function returns. On success, the
    // function returns only after the entry has completed.
    let pushed = unsafe { lent.ring.submission().push(entry) };
    pushed.map_err(io::Error::other)?;
    lent.ring.submit_and_wait(1)?;
    let result = lent.ring.completion().next();
    result
        .map(|entry| entry.result())
        .ok_or(io::ErrorKind::NotFound.into())
}
