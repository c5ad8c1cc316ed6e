//! Who makes system calls that may have to wait.

use std::io;
use std::time::Duration;

use super::pool::{MAX_THREADS, Pool};
use super::rings::Ring;
use super::uring::Uring;
use super::{EngineKind, Wakers};
use crate::image::Target;
use crate::transfer::Transfer;

/// Who makes system calls that may have to wait.
pub(super) enum Backend<'a> {
    Uring(Uring<'a>),
    Pool(Pool),
}

impl<'a> Backend<'a> {
    /// The backend of this kind, or threads where there is no io_uring.
    pub fn new(kind: EngineKind, slots: u16, wakers: Wakers, ring: &'a mut Ring) -> Self {
        let threads = MAX_THREADS.min(slots.into());
        match kind {
            EngineKind::Auto | EngineKind::Uring => {}
            EngineKind::Threads => return Self::Pool(Pool::new(threads, wakers)),
            #[cfg(any(test, feature = "fuzzing"))]
            EngineKind::OnTheSpot => return Self::Pool(Pool::new(0, wakers)),
        }
        match ring.enable() {
            Ok(Some(ring)) => Self::Uring(Uring::new(ring, wakers)),
            // The device has said so.
            Ok(None) => Self::Pool(Pool::new(threads, wakers)),
            Err(error) => {
                tracing::warn!("a queue is served by threads, as its io_uring failed: {error}");
                Self::Pool(Pool::new(threads, wakers))
            }
        }
    }

    pub fn next_result(&mut self) -> Option<(u16, i32)> {
        match self {
            Self::Uring(uring) => uring.next_result(),
            Self::Pool(pool) => pool.next_result(),
        }
    }

    /// Hands what was begun to the kernel, and lets it say what has ended, without waiting.
    pub fn submit(&mut self) -> io::Result<()> {
        match self {
            Self::Uring(uring) => uring.submit(),
            Self::Pool(_) => Ok(()),
        }
    }

    /// Whether a call has ended, as far as that can be seen without a system call.
    pub fn has_ended(&mut self) -> bool {
        match self {
            Self::Uring(uring) => uring.has_ended(),
            Self::Pool(pool) => pool.has_ended(),
        }
    }

    /// Sleeps until a call ends, the driver kicks, the stop eventfd is written, or the time is over.
    pub fn wait(&mut self, time: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Uring(uring) => uring.wait(time),
            Self::Pool(pool) => pool.wait(time),
        }
    }

    /// Begins the next call of `transfer`.
    ///
    /// # Safety
    ///
    /// The target, the transfer and its buffers must stay valid and unchanged until the result with
    /// this slot has been returned.
    pub unsafe fn call(
        &mut self,
        slot: u16,
        target: Target<'_>,
        transfer: &Transfer,
    ) -> io::Result<()> {
        match (self, target) {
            // SAFETY: as the caller promises.
            (Self::Uring(uring), Target::File(file)) => unsafe { uring.push(slot, file, transfer) },
            // Only threads are given such images.
            (Self::Uring(_), Target::Qcow2(_)) => Err(io::ErrorKind::Unsupported.into()),
            (Self::Pool(pool), _) => {
                // SAFETY: as the caller promises.
                unsafe { pool.call(slot, target, transfer) };
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
