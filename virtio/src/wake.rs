//! Tells the thread of a queue to stop serving the queue.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ipc::SharedEventFd;

/// Tells the thread of a queue to stop serving the queue.
///
/// [`Wake::event`] becomes readable when the queue has to stop. Other threads of the device may
/// signal the event as well, to tell the queue's thread that results are ready.
#[derive(Debug)]
pub struct Wake {
    stop: AtomicBool,
    event: Arc<SharedEventFd>,
}

impl Wake {
    /// Makes a `Wake` without a stop request.
    ///
    /// # Errors
    ///
    /// When the process has reached its limit of open files.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            stop: AtomicBool::new(false),
            event: Arc::new(SharedEventFd::new()?),
        })
    }

    /// Whether the queue has to stop. A device that stops takes no more requests, and completes the
    /// requests in flight.
    pub fn is_stop_requested(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The eventfd that becomes readable when the queue has to stop.
    pub fn event(&self) -> &Arc<SharedEventFd> {
        &self.event
    }

    /// Asks the queue to stop.
    pub(crate) fn request_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        // The signal should not fail, because the eventfd is private to this process.
        if let Err(error) = self.event.signal() {
            tracing::error!("cannot wake a queue's thread: {error}");
        }
    }

    /// Withdraws the stop request, before the queue serves another vring.
    pub(crate) fn reset(&self) {
        self.stop.store(false, Ordering::Relaxed);
        // If the eventfd cannot be reset, the only effect is one needless wake-up of the thread.
        let _ = self.event.take();
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
