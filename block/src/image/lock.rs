//! Locks that keep two programs from writing one image unknowingly.
//!
//! They are QEMU's (`block/file-posix.c`): locks of open file descriptions on single bytes, always
//! shared ones, so that only looking for them tells. Byte 100 + n is locked by whoever uses
//! permission n, byte 200 + n by whoever does not want others to use it. Each program first locks
//! its own bytes, then looks for others' that are in conflict; of two at once, one at least sees
//! the other. The bytes need not exist in the file.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

const USED: i64 = 100;
const UNSHARED: i64 = 200;

/// Permissions that matter here, by their bit number in QEMU.
const CONSISTENT_READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// What neither a reader nor a writer of a disk wants others to do to it.
const NOT_SHARED: [i64; 2] = [WRITE, RESIZE];

/// What somebody else does with the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conflict {
    /// Writes it, or may change its size.
    OtherWriter,
    /// Relies on nobody else writing it.
    OtherUser,
}

/// Locks an image for reading or for writing, too. The locks last as long as the file is open.
///
/// # Errors
///
/// When the file system does not know such locks.
pub(super) fn lock(file: &File, read_only: bool) -> io::Result<Result<(), Conflict>> {
    let used: &[i64] = match read_only {
        true => &[CONSISTENT_READ],
        false => &[CONSISTENT_READ, WRITE],
    };
    for permission in used {
        set_shared(file, USED + permission)?;
    }
    for permission in NOT_SHARED {
        set_shared(file, UNSHARED + permission)?;
    }
    for permission in NOT_SHARED {
        if is_locked(file, USED + permission)? {
            return Ok(Err(Conflict::OtherWriter));
        }
    }
    for permission in used {
        if is_locked(file, UNSHARED + permission)? {
            return Ok(Err(Conflict::OtherUser));
        }
    }
    Ok(Ok(()))
}

fn set_shared(file: &File, byte: i64) -> io::Result<()> {
    control(file, libc::F_OFD_SETLK, libc::F_RDLCK, byte).map(drop)
}

/// Whether somebody else has a lock on the byte.
fn is_locked(file: &File, byte: i64) -> io::Result<bool> {
    let found = control(file, libc::F_OFD_GETLK, libc::F_WRLCK, byte)?;
    Ok(found != libc::F_UNLCK)
}

/// Answers with the kind of lock that the kernel has put in.
fn control(file: &File, command: i32, kind: i32, byte: i64) -> io::Result<i32> {
    let mut lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the kernel reads and writes one valid structure, during the call only.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
    match result {
        0 => Ok(lock.l_type.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests;
