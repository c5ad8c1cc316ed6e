//! Requests that wait because of limits.

use virtio::QueueError;

use super::Worker;
use crate::limit::Gate;
use crate::request::Request;

impl Worker<'_> {
    /// Returns the request if it may be carried out now. Otherwise the request waits at the gate.
    pub(super) fn admit(&mut self, slot: u16, request: Request) -> Option<Request> {
        match &mut self.gate {
            None => Some(request),
            Some(gate) => gate.enter(slot, request),
        }
    }

    /// Whether a request waits at the gate. Later requests then stay in the vring.
    pub(super) fn is_held(&self) -> bool {
        self.gate.as_ref().is_some_and(Gate::is_closed)
    }

    /// Carries out the waiting request if it has waited long enough. Returns true if a request
    /// still waits afterwards.
    pub(super) fn hold(&mut self) -> Result<bool, QueueError> {
        let due = self.gate.as_mut().and_then(Gate::due);
        self.release(due)?;
        Ok(self.is_held())
    }

    /// Carries out the waiting request now, because the queue stops.
    pub(super) fn stop_holding(&mut self) -> Result<(), QueueError> {
        let held = self.gate.as_mut().and_then(Gate::open);
        self.release(held)
    }

    fn release(&mut self, held: Option<(u16, Request)>) -> Result<(), QueueError> {
        let Some((slot, request)) = held else {
            return Ok(());
        };
        let started = self.carry_out(slot, request);
        self.answer_unless_in_flight(slot, started)
    }
}
