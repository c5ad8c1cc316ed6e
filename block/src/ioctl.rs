//! Requests to block devices that only an ioctl makes.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `_IO(0x12, 119)` of linux/fs.h.
const BLKDISCARD: libc::Ioctl = 0x1277;
/// `_IO(0x12, 125)` of linux/fs.h.
const BLKSECDISCARD: libc::Ioctl = 0x127d;

/// Both requests take a range of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// The content of the range is not needed any more.
    Discard,
    /// The same, and nobody can recover the content.
    SecureErase,
}

/// Makes the request for `len` bytes from `offset` on. The answer is the system call's: -1 with
/// `errno` set for a failure.
pub(crate) fn change(device: BorrowedFd<'_>, request: Request, offset: u64, len: u64) -> isize {
    let request = match request {
        Request::Discard => BLKDISCARD,
        Request::SecureErase => BLKSECDISCARD,
    };
    let range = [offset, len];
    // SAFETY: the kernel reads two 64-bit numbers from the pointer, which points to two that live
    // until the call returns, and accesses no other memory.
    unsafe { libc::ioctl(device.as_raw_fd(), request, range.as_ptr()) as isize }
}

/// Whether a block device can erase ranges beyond recovery. Linux before 5.19 says so of every device
/// that discards, and refuses the requests themselves.
pub(crate) fn can_secure_erase(device: &File) -> bool {
    use std::os::fd::AsFd;
    // A range that is not a whole sector is never erased: a device that can erase answers EINVAL, one
    // that cannot answers EOPNOTSUPP before it looks at the range.
    let result = change(device.as_fd(), Request::SecureErase, 1, 1);
    result == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL)
}
