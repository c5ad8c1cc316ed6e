//! How a queue's thread hears that it has to stop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ipc::SharedEventFd;

/// Tells a queue's thread to look up from its work: it has to stop.
///
/// [`Wake::event`] becomes readable with a request to stop. A device may signal it, too, from other
/// threads of its own, to wake the queue's thread for results.
#[derive(Debug)]
pub struct Wake {
    stop: AtomicBool,
    event: Arc<SharedEventFd>,
}

impl Wake {
    /// A wake that asks for nothing yet.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            stop: AtomicBool::new(false),
            event: Arc::new(SharedEventFd::new()?),
        })
    }

    /// Whether the queue has to stop: it takes no more requests and finishes those in flight.
    pub fn is_stop_requested(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Becomes readable when the queue has to stop.
    pub fn event(&self) -> &Arc<SharedEventFd> {
        &self.event
    }

    pub(crate) fn request_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        // An eventfd of our own that nobody reads down to a full counter cannot fail.
        if let Err(error) = self.event.signal() {
            tracing::error!("cannot wake a queue's thread: {error}");
        }
    }

    /// Gets ready for the next vring.
    pub(crate) fn reset(&self) {
        self.stop.store(false, Ordering::Relaxed);
        // A signal that stays only wakes the thread once too often.
        let _ = self.event.take();
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
