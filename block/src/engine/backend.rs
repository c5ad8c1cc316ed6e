//! Who makes system calls that may have to wait.

use std::io;
use std::sync::Once;
use std::thread;
use std::time::{Duration, Instant};

use super::pool::{MAX_THREADS, Pool};
use super::uring::Uring;
use super::{EngineKind, Wakers};
use crate::image::Target;
use crate::transfer::Transfer;

/// For how long memory for a ring is waited for. It counts as locked memory, whose amount is limited,
/// and what an earlier ring had is given back some time after that was closed: tens of milliseconds.
const PATIENCE: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_millis(2);

/// Who makes system calls that may have to wait.
pub(super) enum Backend {
    Uring(Box<Uring>),
    Pool(Pool),
}

impl Backend {
    /// The one of this kind, or threads where the kernel refuses io_uring.
    pub fn new(kind: EngineKind, slots: u16, wakers: Wakers) -> Self {
        let threads = MAX_THREADS.min(slots.into());
        match kind {
            EngineKind::Auto | EngineKind::Uring => {}
            EngineKind::Threads => return Self::Pool(Pool::new(threads, wakers)),
            #[cfg(any(test, feature = "fuzzing"))]
            EngineKind::OnTheSpot => return Self::Pool(Pool::new(0, wakers)),
        }
        match ring(slots, wakers) {
            Ok(uring) => Self::Uring(Box::new(uring)),
            Err((error, wakers)) => {
                // The same for every queue, so once is enough.
                static SAID: Once = Once::new();
                SAID.call_once(|| {
                    tracing::warn!("no io_uring, so requests are served by threads: {error}");
                });
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

fn ring(slots: u16, mut wakers: Wakers) -> Result<Uring, (io::Error, Wakers)> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (error, unused) = match Uring::new(slots, wakers) {
            Ok(ring) => return Ok(ring),
            Err(refused) => refused,
        };
        if error.raw_os_error() != Some(libc::ENOMEM) || Instant::now() > deadline {
            return Err((error, unused));
        }
        wakers = unused;
        thread::sleep(PAUSE);
    }
}

/// The calling thread's last error as the kernel's own calls return it.
pub(super) fn negated_errno() -> i32 {
    -io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}
