//! Changes of block devices that need an ioctl.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// The number `_IO(0x12, 119)` of the ioctl, from linux/fs.h.
const BLKDISCARD: libc::Ioctl = 0x1277;
/// The number `_IO(0x12, 125)` of the ioctl, from linux/fs.h.
const BLKSECDISCARD: libc::Ioctl = 0x127d;

/// An ioctl that changes a range of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RangeIoctl {
    /// Tells the device that the content of the range is no longer needed.
    Discard,
    /// Discards the range and makes sure that nobody can recover its content.
    SecureErase,
}

/// Makes the ioctl for `len` bytes from `offset` on. Returns the result of the system call, which
/// is -1 with `errno` set on failure.
pub(crate) fn change(device: BorrowedFd<'_>, ioctl: RangeIoctl, offset: u64, len: u64) -> isize {
    let request = match ioctl {
        RangeIoctl::Discard => BLKDISCARD,
        RangeIoctl::SecureErase => BLKSECDISCARD,
    };
    let range = [offset, len];
    // SAFETY: both ioctls make the kernel read two 64-bit numbers from the pointer and access no
    // other memory of this process. `range` holds two such numbers and outlives the call.
    unsafe { libc::ioctl(device.as_raw_fd(), request, range.as_ptr()) as isize }
}

/// Whether a block device can erase ranges beyond recovery. Linux before 5.19 reports this ability
/// for every device that can discard, but may then refuse the erase operations.
pub(crate) fn can_secure_erase(device: &File) -> bool {
    // This call asks the kernel to erase a part of a sector. The kernel never does this. For a
    // device that cannot erase, it returns EOPNOTSUPP before it checks the range. For other devices
    // it returns EINVAL.
    let result = change(device.as_fd(), RangeIoctl::SecureErase, 1, 1);
    result == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL)
}
