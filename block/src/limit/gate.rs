//! The place where a request of a queue waits because of limits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Throttle;
use crate::request::Request;

/// Holds one waiting request of a queue. Meanwhile later requests stay in the vring.
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

    /// Whether a request waits. While it waits, no other request may enter.
    pub fn is_closed(&self) -> bool {
        self.held.is_some()
    }

    /// Returns the request if it may be carried out now. Otherwise the gate holds the request.
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

    /// Takes the waiting request if it has waited long enough.
    pub fn due(&mut self) -> Option<(u16, Request)> {
        let due = |held: &mut Held| held.until <= Instant::now();
        let held = self.held.take_if(due)?;
        Some((held.slot, held.request))
    }

    /// Takes the waiting request, even if it has not waited long enough.
    pub fn open(&mut self) -> Option<(u16, Request)> {
        let held = self.held.take()?;
        Some((held.slot, held.request))
    }

    /// The time that the request still has to wait. `None` if no request waits.
    pub fn wait(&self) -> Option<Duration> {
        let held = self.held.as_ref()?;
        Some(held.until.saturating_duration_since(Instant::now()))
    }
}
