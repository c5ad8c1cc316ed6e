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

    /// Carries out the waiting request if it has waited long enough. Returns true if the gate still
    /// holds a request afterwards.
    pub(super) fn hold(&mut self) -> Result<bool, QueueError> {
        if let Some((slot, request)) = self.gate.as_mut().and_then(Gate::due) {
            let started = self.carry_out(slot, request);
            self.answer_unless_in_flight(slot, started)?;
        }
        Ok(self.is_held())
    }

    /// Puts the waiting request back into the vring, because the queue stops. A request that was
    /// carried out instead would bypass the limits.
    pub(super) fn put_held_back(&mut self) {
        let Some(slot) = self.gate.as_mut().and_then(Gate::cancel) else {
            return;
        };
        // This request is the last one that was taken, because later requests stay in the vring
        // while a request waits. So its chain can be put back.
        let chain = &mut self.pending[usize::from(slot)].chain;
        self.queue.ring.put_back(chain);
        self.release(slot);
    }
}
