//! System calls that change a range of the image without moving data.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::request::Range;
use crate::transfer::Operation;

/// Of `linux/fs.h`: _IO(0x12, 119) and _IO(0x12, 125).
const BLKDISCARD: libc::Ioctl = 0x1277;
const BLKSECDISCARD: libc::Ioctl = 0x127d;

/// `fallocate` modes; none of them changes a file's size. Block devices know them, too, except
/// that they cannot allocate.
pub(super) fn fallocate_mode(operation: Operation) -> Option<i32> {
    let mode = match operation {
        Operation::Unmap | Operation::Punch => libc::FALLOC_FL_PUNCH_HOLE,
        Operation::Zero => libc::FALLOC_FL_ZERO_RANGE,
        Operation::Allocate => 0,
        _ => return None,
    };
    Some(mode | libc::FALLOC_FL_KEEP_SIZE)
}

/// True for what only an ioctl does, which no io_uring of Linux before 6.12 takes.
pub(super) fn is_ioctl(operation: Operation) -> bool {
    ioctl_request(operation).is_some()
}

/// Whether a block device can erase ranges beyond recovery. (Linux before 5.19 says so of every
/// device that discards, and refuses when it comes to it.)
pub(crate) fn can_secure_erase(device: &File) -> bool {
    // No whole sector, so that nothing is ever erased; but first it says whether it could be.
    let range: [u64; 2] = [1, 1];
    // SAFETY: the request reads two numbers of 64 bits, and takes no other memory.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), BLKSECDISCARD, range.as_ptr()) };
    result == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL)
}

fn ioctl_request(operation: Operation) -> Option<libc::Ioctl> {
    match operation {
        Operation::Discard => Some(BLKDISCARD),
        Operation::SecureErase => Some(BLKSECDISCARD),
        _ => None,
    }
}

/// Makes the system call of an operation without buffers, if it is one of this module; the answer
/// is the call's, -1 with `errno` set for a failure.
pub(super) fn system_call(
    file: BorrowedFd<'_>,
    operation: Operation,
    range: Range,
) -> Option<isize> {
    let file = file.as_raw_fd();
    let Range { offset, len } = range;
    if let Some(request) = ioctl_request(operation) {
        let range = [offset, len];
        // SAFETY: both requests read two numbers of 64 bits, and take no other memory.
        return Some(unsafe { libc::ioctl(file, request, range.as_ptr()) as isize });
    }
    let mode = fallocate_mode(operation)?;
    // SAFETY: no memory is involved.
    Some(unsafe { libc::fallocate(file, mode, offset as i64, len as i64) as isize })
}
