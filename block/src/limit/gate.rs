//! Where a queue's requests wait for limits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Throttle;
use crate::request::Request;

/// A queue's place to wait, for one request; those behind it stay in the ring.
#[derive(Debug)]
pub(crate) struct Gate {
    throttle: Arc<Throttle>,
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    slot: u16,
    request: Request,
    until: Instant,
}

impl Gate {
    pub fn new(throttle: Arc<Throttle>) -> Self {
        Self {
            throttle,
            held: None,
        }
    }

    /// Whether a request waits, so that no other may enter.
    pub fn is_closed(&self) -> bool {
        self.held.is_some()
    }

    /// Gives the request back if it may be carried out now.
    pub fn enter(&mut self, slot: u16, request: Request) -> Option<Request> {
        let Some(until) = self.throttle.take(&request) else {
            return Some(request);
        };
        self.held = Some(Held {
            slot,
            request,
            until,
        });
        None
    }

    /// The request that waits, if it has waited long enough.
    pub fn due(&mut self) -> Option<(u16, Request)> {
        let due = |held: &mut Held| held.until <= Instant::now();
        let held = self.held.take_if(due)?;
        Some((held.slot, held.request))
    }

    /// The request that waits, however long it would.
    pub fn open(&mut self) -> Option<(u16, Request)> {
        let held = self.held.take()?;
        Some((held.slot, held.request))
    }

    /// How long the request still has to wait; `None`: there is none.
    pub fn wait(&self) -> Option<Duration> {
        let held = self.held.as_ref()?;
        Some(held.until.saturating_duration_since(Instant::now()))
    }
}
