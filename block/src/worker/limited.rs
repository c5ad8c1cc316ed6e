//! Requests that limits hold back.

use virtio::QueueError;

use super::Worker;
use crate::limit::Gate;
use crate::request::Request;

impl Worker<'_> {
    /// The request again, unless it has to wait.
    pub(super) fn admit(&mut self, slot: u16, request: Request) -> Option<Request> {
        match &mut self.gate {
            None => Some(request),
            Some(gate) => gate.enter(slot, request),
        }
    }

    /// Whether a request waits, so that those behind it have to stay in the ring.
    pub(super) fn is_held(&self) -> bool {
        self.gate.as_ref().is_some_and(Gate::is_closed)
    }

    /// Carries the waiting request out if its time has come; true when one still waits.
    pub(super) fn hold(&mut self) -> Result<bool, QueueError> {
        let due = self.gate.as_mut().and_then(Gate::due);
        self.release(due)?;
        Ok(self.is_held())
    }

    /// Carries the waiting request out now, as nobody can wait for it any more.
    pub(super) fn stop_holding(&mut self) -> Result<(), QueueError> {
        let held = self.gate.as_mut().and_then(Gate::open);
        self.release(held)
    }

    fn release(&mut self, held: Option<(u16, Request)>) -> Result<(), QueueError> {
        let Some((slot, request)) = held else {
            return Ok(());
        };
        let begun = self.carry_out(slot, request);
        self.begun(slot, begun)
    }
}
