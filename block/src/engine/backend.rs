//! Who makes system calls that may have to wait.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Once;
use std::time::Duration;

use super::blocking::Blocking;
use super::uring::Uring;
use super::{EngineKind, Wakers};
use crate::transfer::Transfer;

/// Who makes system calls that may have to wait.
pub(super) enum Backend {
    Uring(Box<Uring>),
    Blocking(Blocking),
}

impl Backend {
    pub fn new(kind: EngineKind, slots: u16, wakers: Wakers) -> Self {
        if kind == EngineKind::Blocking {
            return Self::Blocking(Blocking::new(wakers));
        }
        match Uring::new(slots, wakers) {
            Ok(uring) => Self::Uring(Box::new(uring)),
            Err((error, wakers)) => {
                // The same for every queue, so once is enough.
                static SAID: Once = Once::new();
                SAID.call_once(|| {
                    tracing::warn!("no io_uring, so requests are served one at a time: {error}");
                });
                Self::Blocking(Blocking::new(wakers))
            }
        }
    }

    pub fn next_result(&mut self) -> Option<(u16, i32)> {
        match self {
            Self::Uring(uring) => uring.next_result(),
            Self::Blocking(blocking) => blocking.next_result(),
        }
    }

    /// Hands what was begun to the kernel, and lets it say what has ended, without waiting.
    pub fn submit(&mut self) -> io::Result<()> {
        match self {
            Self::Uring(uring) => uring.submit(),
            Self::Blocking(_) => Ok(()),
        }
    }

    /// Whether a call has ended, as far as that can be seen without a system call.
    pub fn has_ended(&mut self) -> bool {
        match self {
            Self::Uring(uring) => uring.has_ended(),
            Self::Blocking(_) => false,
        }
    }

    /// Sleeps until a call ends, the driver kicks, the stop eventfd is written, or the time is over.
    pub fn wait(&mut self, time: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Uring(uring) => uring.wait(time),
            Self::Blocking(blocking) => blocking.wait(time),
        }
    }

    /// Begins the next system call of `transfer`.
    ///
    /// # Safety
    ///
    /// The file, the transfer and its buffers must stay valid and unchanged until the result with
    /// this slot has been returned.
    pub unsafe fn call(
        &mut self,
        slot: u16,
        file: BorrowedFd<'_>,
        transfer: &Transfer,
    ) -> io::Result<()> {
        match self {
            // SAFETY: as the caller promises.
            Self::Uring(uring) => unsafe { uring.push(slot, file, transfer) },
            Self::Blocking(blocking) => {
                // SAFETY: as the caller promises.
                unsafe { blocking.call(slot, file, transfer) };
                Ok(())
            }
        }
    }
}

/// The calling thread's last error as the kernel's own calls return it.
pub(super) fn negated_errno() -> i32 {
    -io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}
