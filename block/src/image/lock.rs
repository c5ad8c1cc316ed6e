//! Locks that keep two programs from writing one image by accident.
//!
//! The locks are the same as in QEMU (`block/file-posix.c`). Each lock belongs to an open file
//! description and covers a single byte of the file. A program that uses permission n locks byte
//! 100 + n. A program that denies permission n to other programs locks byte 200 + n. All locks are
//! shared locks, so an attempt to take a lock never fails because of another lock. A program first
//! takes its own locks, and then looks for locks of other programs that contradict its own locks.
//! If two programs do this at the same time, at least one of them sees the locks of the other
//! program. The locked bytes need not exist in the file.
//!
//! A program that was killed holds its locks for some more milliseconds: the kernel first ends the
//! program's requests to storage, and the program's supervisor flushes the image. So a program that
//! finds locks of another program tries again for a limited time. Between the attempts it holds no
//! locks, so that it refuses nobody an image that it does not use yet.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The pause between two attempts to lock an image.
const PAUSE: Duration = Duration::from_millis(10);

const USED: i64 = 100;
const UNSHARED: i64 = 200;

/// The permissions that matter for an image. The values are the bit numbers of the permissions in
/// QEMU.
const CONSISTENT_READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// The permissions that every program with an open image denies to other programs.
const NOT_SHARED: [i64; 2] = [WRITE, RESIZE];

/// The result of an attempt to lock an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Locked {
    /// The image is locked, and no other program conflicts.
    Ours,
    /// Another program writes to the image, or may change its size.
    OtherWriter,
    /// Another program does not allow the accesses that this process needs.
    OtherUser,
}

/// Locks an image for reading and, unless it is `read_only`, for writing. If another program
/// conflicts, tries again until `patience` has passed. The locks last as long as the file is open.
/// If the result is not [`Locked::Ours`], the file has no locks.
///
/// # Errors
///
/// When the file system does not support locks of open file descriptions.
pub(super) fn lock(file: &File, read_only: bool, patience: Duration) -> io::Result<Locked> {
    let begin = Instant::now();
    let mut locked = try_lock(file, read_only)?;
    if locked != Locked::Ours && !patience.is_zero() {
        tracing::info!("another program uses the image; waiting {patience:?} at most for its end");
    }
    while locked != Locked::Ours && begin.elapsed() < patience {
        sleep(PAUSE);
        locked = try_lock(file, read_only)?;
    }
    Ok(locked)
}

/// Makes one attempt to lock an image.
fn try_lock(file: &File, read_only: bool) -> io::Result<Locked> {
    let used: &[i64] = if read_only {
        &[CONSISTENT_READ]
    } else {
        &[CONSISTENT_READ, WRITE]
    };
    for permission in used {
        set(file, USED + permission, libc::F_RDLCK)?;
    }
    for permission in NOT_SHARED {
        set(file, UNSHARED + permission, libc::F_RDLCK)?;
    }
    let locked = look(file, used)?;
    if locked != Locked::Ours {
        unlock(file)?;
    }
    Ok(locked)
}

/// Looks for locks of other programs that conflict with the use of the permissions `used`.
fn look(file: &File, used: &[i64]) -> io::Result<Locked> {
    for permission in NOT_SHARED {
        if is_locked(file, USED + permission)? {
            return Ok(Locked::OtherWriter);
        }
    }
    for permission in used {
        if is_locked(file, UNSHARED + permission)? {
            return Ok(Locked::OtherUser);
        }
    }
    Ok(Locked::Ours)
}

/// Removes all locks of this file.
fn unlock(file: &File) -> io::Result<()> {
    for permission in [CONSISTENT_READ, WRITE] {
        set(file, USED + permission, libc::F_UNLCK)?;
    }
    for permission in NOT_SHARED {
        set(file, UNSHARED + permission, libc::F_UNLCK)?;
    }
    Ok(())
}

/// Takes (F_RDLCK) or removes (F_UNLCK) the lock on a byte.
fn set(file: &File, byte: i64, kind: i32) -> io::Result<()> {
    control(file, libc::F_OFD_SETLK, kind, byte).map(drop)
}

/// Whether another program has a lock on the byte.
fn is_locked(file: &File, byte: i64) -> io::Result<bool> {
    let found = control(file, libc::F_OFD_GETLK, libc::F_WRLCK, byte)?;
    Ok(found != libc::F_UNLCK)
}

/// Makes a system call for a lock. Returns the kind of lock that the kernel reports.
fn control(file: &File, command: i32, kind: i32, byte: i64) -> io::Result<i32> {
    let mut lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: both commands make the kernel read and write one `flock` at the pointer, during the
    // call only. `lock` is such a `flock`, and nothing else borrows it.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
    match result {
        0 => Ok(lock.l_type.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests;
