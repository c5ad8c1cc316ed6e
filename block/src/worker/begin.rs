//! From a descriptor chain to the engine.

use virtio::QueueError;

use super::Worker;
use crate::engine::{BeginError, Begun, Data};
use crate::request::{HEADER_LEN, Range, Refusal, Request};
use crate::transfer::Operation;

impl Begun {
    /// There was nothing to do for the engine.
    const DONE: Self = Self::Ended(Ok(()));
}

impl From<BeginError> for Refusal {
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::OutsideMemory => Self::OutsideMemory,
            BeginError::Engine(error) => Self::Engine(error.kind()),
        }
    }
}

impl Worker<'_> {
    pub(super) fn begin(&mut self, slot: u16) -> Result<(), QueueError> {
        let begun = self.try_begin(slot);
        self.begun(slot, begun)
    }

    pub(super) fn begun(
        &mut self,
        slot: u16,
        begun: Result<Begun, Refusal>,
    ) -> Result<(), QueueError> {
        match begun {
            Ok(Begun::InFlight) => Ok(()),
            Ok(Begun::Ended(result)) => self.ended(slot, result),
            Err(refusal) => {
                self.complain(&format_args!("request refused: {refusal}"));
                self.end(slot, refusal.status(), 0)
            }
        }
    }

    fn try_begin(&mut self, slot: u16) -> Result<Begun, Refusal> {
        let chain = &self.pending[usize::from(slot)].chain;
        let request = Request::parse(chain, &self.memory, self.disk.image.limits())?;
        match self.admit(slot, request) {
            Some(request) => self.carry_out(slot, request),
            None => Ok(Begun::InFlight),
        }
    }

    pub(super) fn carry_out(&mut self, slot: u16, request: Request) -> Result<Begun, Refusal> {
        let pending = &mut self.pending[usize::from(slot)];
        let chain = &pending.chain;
        let engine = &mut self.engine;
        let stable =
            self.disk.image.flushes() && (self.write_through || !self.disk.cache.is_writeback());
        pending.data_in = 0;
        pending.volatile = false;
        match request {
            Request::Read(Range { len: 0, .. }) | Request::Write(Range { len: 0, .. }) => {
                return Ok(Begun::DONE);
            }
            Request::Read(range) => {
                pending.data_in = range.len;
                let data = Data::new(&chain.writable, 0);
                // A broken ring shows when the next request is taken.
                let others_wait = || self.queue.ring.has_requests().unwrap_or(false);
                let aside = engine.is_better_aside(range.len) && others_wait();
                return Ok(engine.transfer(slot, Operation::Read, range, data, aside)?);
            }
            Request::Write(range) => {
                pending.volatile = !stable;
                let write = match stable {
                    true => Operation::WriteStable,
                    false => Operation::Write,
                };
                let data = Data::new(&chain.readable, HEADER_LEN);
                return Ok(engine.transfer(slot, write, range, data, false)?);
            }
            Request::Flush if !self.disk.image.flushes() => return Ok(Begun::DONE),
            Request::Flush if self.disk.image.has_lost_writes() => return Err(Refusal::LostWrites),
            Request::Change(_, ranges) if ranges.is_empty() => return Ok(Begun::DONE),
            Request::Change(change, ranges) => {
                pending.volatile = !stable;
                engine.steps(slot, &self.disk.image.steps(change, &ranges, stable))?;
            }
            Request::Flush => engine.flush(slot)?,
            Request::GetId { len } => {
                let written = chain.writable.write(&self.memory, 0, &self.disk.id[..len]);
                written.map_err(|_| Refusal::OutsideMemory)?;
                pending.data_in = len as u64;
                return Ok(Begun::DONE);
            }
        }
        Ok(Begun::InFlight)
    }
}
