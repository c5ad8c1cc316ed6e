//! Closes descriptors that a process does not need.

use std::ffi::c_uint;
use std::io;
use std::os::fd::RawFd;

/// The standard streams.
pub const STANDARD: [RawFd; 3] = [0, 1, 2];

/// Closes all descriptors except for these.
///
/// # Safety
///
/// Nothing uses or closes the other descriptors from now on.
///
/// # Errors
///
/// When the kernel has no close_range(2), which came with Linux 5.9.
pub unsafe fn close_all_but(kept: impl IntoIterator<Item = RawFd>) -> io::Result<()> {
    let mut kept: Vec<_> = kept.into_iter().map(|fd| fd as c_uint).collect();
    kept.sort_unstable();
    let mut first = 0;
    for fd in kept {
        if first < fd {
            // SAFETY: as the caller promises.
            unsafe { close_range(first, fd - 1) }?;
        }
        first = fd + 1;
    }
    // SAFETY: as the caller promises.
    unsafe { close_range(first, c_uint::MAX) }
}

/// # Safety
///
/// Nothing uses or closes the descriptors `first..=last` from now on.
unsafe fn close_range(first: c_uint, last: c_uint) -> io::Result<()> {
    // musl has no function for this call.
    // SAFETY: the call takes numbers only, and the caller promises that nothing uses the
    // descriptors.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
