//! Signals to the client's eventfds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ipc::SharedEventFd;
use tracing::debug;

/// Whether a signal to one of the client's eventfds has blocked. All parts of a function that
/// signal eventfds of the client share this flag.
///
/// A signal that blocks delays the event loop, and with it other peers, for some milliseconds.
/// Therefore no eventfd of this client is signalled afterwards, and the event loop drops the
/// client.
#[derive(Clone, Debug, Default)]
pub struct Blocked(Arc<AtomicBool>);

impl Blocked {
    /// Signals an eventfd. Returns false if this signal or an earlier signal to the client failed.
    pub fn signal(&self, eventfd: &SharedEventFd) -> bool {
        if self.is_set() {
            return false;
        }
        let signalled = eventfd.signal();
        if let Err(error) = &signalled {
            debug!("cannot signal the client: {error}");
            self.0.store(true, Ordering::SeqCst);
        }
        signalled.is_ok()
    }

    /// Whether a signal has blocked since the client connected.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Allows signals again, for the next client.
    pub fn clear(&self) {
        self.0.store(false, Ordering::SeqCst);
    }
}
