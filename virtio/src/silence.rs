//! Notices that a driver kicks, but that none of its requests is found.
//!
//! A front-end can share the file of its memory with the device, but map the file privately itself,
//! as QEMU does without `share=on`. The device then sees nothing that the guest writes, and the
//! guest waits for its device forever. Neither side gets an error, so the device gives a hint.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The time from a kick without a request until the hint. Some front-ends kick each queue when it
/// starts, a moment before the driver makes its first request.
const PATIENCE: Duration = Duration::from_secs(1);

/// A queue was kicked, but no request of the driver was found on any queue. The driver's memory may
/// not be shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRequests {
    /// The queue that was kicked.
    pub queue: u16,
}

impl fmt::Display for NoRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.queue;
        write!(
            f,
            "queue {queue} was kicked, but its ring is empty; if the guest hangs, its memory may \
             not be shared"
        )
    }
}

/// Reports [`NoRequests`] to the user.
pub(crate) type Hint = dyn Fn(NoRequests) + Send + Sync;

/// Whether the first request of a driver was found on any queue of its device.
pub(crate) struct FirstRequest {
    /// True until a queue finds the driver's first request, or the hint is given.
    awaited: AtomicBool,
    hint: Arc<Hint>,
}

impl FirstRequest {
    /// The state before the first request. If no request is found, `hint` is called once.
    pub fn awaited(hint: Arc<Hint>) -> Arc<Self> {
        Arc::new(Self {
            awaited: AtomicBool::new(true),
            hint,
        })
    }

    /// A new state with the same hint, for the next driver.
    pub fn again(&self) -> Arc<Self> {
        Self::awaited(self.hint.clone())
    }
}

impl Default for FirstRequest {
    /// Logs the hint as a warning.
    fn default() -> Self {
        Self {
            awaited: AtomicBool::new(true),
            hint: Arc::new(|event| tracing::warn!("{event}")),
        }
    }
}

impl fmt::Debug for FirstRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let awaited = self.awaited.load(Ordering::Relaxed);
        write!(f, "FirstRequest {{ awaited: {awaited} }}")
    }
}

/// The state of one queue that waits for the driver's first request.
#[derive(Debug)]
pub(crate) struct Silence {
    first: Arc<FirstRequest>,
    /// The time of the first kick of the queue after which the ring was empty.
    kicked_at: Option<Instant>,
}

impl Silence {
    pub fn new(first: Arc<FirstRequest>) -> Self {
        Self {
            first,
            kicked_at: None,
        }
    }

    /// Records that the queue has found a request.
    pub fn end(self) {
        self.first.awaited.store(false, Ordering::Relaxed);
    }

    /// Records that the ring was empty after a kick, or after the time that [`Silence::time_left`]
    /// returned. Gives the hint if [`PATIENCE`] has passed since the first kick. Returns `None` if
    /// the queue need not wait any longer.
    pub fn look_in_vain(mut self, event: NoRequests, now: Instant) -> Option<Self> {
        let awaited = &self.first.awaited;
        if !awaited.load(Ordering::Relaxed) {
            return None;
        }
        let kicked_at = *self.kicked_at.get_or_insert(now);
        if now.saturating_duration_since(kicked_at) < PATIENCE {
            return Some(self);
        }
        if awaited.swap(false, Ordering::Relaxed) {
            (self.first.hint)(event);
        }
        None
    }

    /// The time until the hint. `None` before the first kick, so that a queue which is not used
    /// sleeps without a limit.
    pub fn time_left(&self, now: Instant) -> Option<Duration> {
        let waited = now.saturating_duration_since(self.kicked_at?);
        Some(PATIENCE.saturating_sub(waited))
    }
}

#[cfg(test)]
mod tests;
