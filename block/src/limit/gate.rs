//! Holds a request that has to wait because of limits.

use std::sync::Arc;
use std::time::Duration;

use super::{Cost, Throttle};
use crate::request::Request;

/// Holds one waiting request of a queue. As long as a request waits, later requests stay in the
/// vring.
#[derive(Debug)]
pub(crate) struct Gate {
    throttle: Arc<Throttle>,
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    slot: u16,
    request: Request,
    cost: Cost,
    /// The time from which on the request may be carried out.
    start: Duration,
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
        let Some(cost) = Cost::of(&request) else {
            return Some(request);
        };
        let Some(start) = self.throttle.take(cost) else {
            return Some(request);
        };
        self.held = Some(Held {
            slot,
            request,
            cost,
            start,
        });
        None
    }

    /// Takes the waiting request out of the gate if the request has waited long enough.
    pub fn due(&mut self) -> Option<(u16, Request)> {
        let throttle = &self.throttle;
        let held = self.held.take_if(|held| held.start <= throttle.now())?;
        Some((held.slot, held.request))
    }

    /// Forgets the waiting request and returns its tokens. The result is the request's slot.
    pub fn cancel(&mut self) -> Option<u16> {
        let held = self.held.take()?;
        self.throttle.refund(held.cost);
        Some(held.slot)
    }

    /// The time for which the request still has to wait. `None` if no request waits.
    pub fn wait(&self) -> Option<Duration> {
        let held = self.held.as_ref()?;
        Some(held.start.saturating_sub(self.throttle.now()))
    }
}
