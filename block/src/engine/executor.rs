//! The part of an engine that makes blocking calls. It uses an io_uring or a pool of threads.

use std::io;

use virtio::Sleep;

use super::pool::{MAX_THREADS, Pool};
use super::rings::Ring;
use super::transfer::Transfer;
use super::uring::Uring;
use super::{EngineKind, Wakers};
use crate::image::Target;

/// Makes blocking calls.
pub(super) enum Executor<'a> {
    Uring(Uring<'a>),
    Pool(Pool),
}

impl<'a> Executor<'a> {
    /// The executor for this kind of engine. It is a pool of threads if no io_uring is available.
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
            // The io_uring is not available. If the kernel refused it, the device has logged the
            // reason.
            Ok(None) => Self::Pool(Pool::new(threads, wakers)),
            Err(error) => {
                tracing::warn!(
                    "the io_uring of a queue cannot be enabled, so threads serve the queue: {error}"
                );
                Self::Pool(Pool::new(threads, wakers))
            }
        }
    }

    /// The next result: its slot, and the number of transferred bytes or a negated errno.
    pub fn next_result(&mut self) -> Option<(u16, i32)> {
        match self {
            Self::Uring(uring) => uring.next_result(),
            Self::Pool(pool) => pool.next_result(),
        }
    }

    /// Hands queued calls to the kernel and lets the kernel report results. Does not wait.
    pub fn submit(&mut self) -> io::Result<()> {
        match self {
            Self::Uring(uring) => uring.submit(),
            Self::Pool(_) => Ok(()),
        }
    }

    /// Whether results are ready. This check makes no system call, so it may miss results.
    pub fn has_results(&mut self) -> bool {
        match self {
            Self::Uring(uring) => uring.has_results(),
            Self::Pool(pool) => pool.has_results(),
        }
    }

    /// Sleeps until there is a result, the stop eventfd is written, or one of the events of `sleep`
    /// comes.
    pub fn wait(&mut self, sleep: Sleep) -> io::Result<()> {
        match self {
            Self::Uring(uring) => uring.wait(sleep),
            Self::Pool(pool) => pool.wait(sleep),
        }
    }

    /// Queues the next call of `transfer`.
    ///
    /// # Safety
    ///
    /// The target, the transfer and its buffers must stay valid and unchanged until the result with
    /// this slot has been returned.
    pub unsafe fn push(
        &mut self,
        slot: u16,
        target: Target<'_>,
        transfer: &Transfer,
    ) -> io::Result<()> {
        match (self, target) {
            // SAFETY: the caller meets the requirements of `Uring::push`.
            (Self::Uring(uring), Target::File(file)) => unsafe { uring.push(slot, file, transfer) },
            // This cannot happen, because `EngineKind::fit_for` gives qcow2 images to threads.
            (Self::Uring(_), Target::Qcow2(_)) => Err(io::ErrorKind::Unsupported.into()),
            (Self::Pool(pool), _) => {
                // SAFETY: the caller meets the requirements of `Pool::push`.
                unsafe { pool.push(slot, target, transfer) };
                Ok(())
            }
        }
    }
}
