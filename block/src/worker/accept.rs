//! Hands requests to the engine.

use virtio::QueueError;

use super::Worker;
use crate::engine::{Data, EngineError, Started};
use crate::operation::{Operation, Range};
use crate::request::{BlockRefusal, HEADER_LEN, Request};

/// The result of a request that does not need the engine.
const NOTHING_TO_DO: Started = Started::Completed(Ok(()));

impl From<EngineError> for BlockRefusal {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Buffer(error) => error.into(),
            EngineError::Io(error) => Self::Engine(error.kind()),
        }
    }
}

impl Worker<'_> {
    /// Reads the request in a slot. Carries the request out, unless limits make it wait.
    pub(super) fn accept(&mut self, slot: u16) -> Result<(), QueueError> {
        let started = self.try_accept(slot);
        self.answer_unless_in_flight(slot, started)
    }

    /// Answers a request, unless it is in flight. A request that is not in flight was refused or
    /// completed at once.
    pub(super) fn answer_unless_in_flight(
        &mut self,
        slot: u16,
        started: Result<Started, BlockRefusal>,
    ) -> Result<(), QueueError> {
        match started {
            Ok(Started::InFlight) => {
                self.count(slot, self.engine.buffers(slot));
                Ok(())
            }
            Ok(Started::Completed(result)) => self.answer(slot, result),
            Err(refusal) => {
                self.complain(&format_args!("request refused: {refusal}"));
                self.give_back(slot, refusal.status(), 0)
            }
        }
    }

    fn try_accept(&mut self, slot: u16) -> Result<Started, BlockRefusal> {
        let chain = &self.pending[usize::from(slot)].chain;
        let request = Request::parse(chain, &self.memory, self.disk.image.limits())?;
        match self.admit(slot, request) {
            Some(request) => self.carry_out(slot, request),
            None => Ok(Started::InFlight),
        }
    }

    /// Starts a request. A request that does not need the engine is completed at once.
    pub(super) fn carry_out(
        &mut self,
        slot: u16,
        request: Request,
    ) -> Result<Started, BlockRefusal> {
        let pending = &mut self.pending[usize::from(slot)];
        let chain = &pending.chain;
        let engine = &mut self.engine;
        let stable =
            self.disk.image.flushes() && (self.write_through || !self.disk.cache.is_writeback());
        pending.data_in = 0;
        pending.volatile = false;
        match request {
            Request::Read(Range { len: 0, .. }) | Request::Write(Range { len: 0, .. }) => {
                return Ok(NOTHING_TO_DO);
            }
            Request::Read(range) => {
                pending.data_in = range.len;
                let data = Data::new(&chain.writable, 0);
                // An error of the vring is ignored here, because it will occur again when the
                // worker takes the next request.
                let others_wait = || self.queue.ring.has_requests().unwrap_or(false);
                let aside = engine.is_better_aside(range.len) && others_wait();
                return Ok(engine.transfer(slot, Operation::Read, range, data, aside)?);
            }
            Request::Write(range) => {
                pending.volatile = !stable;
                let write = if stable {
                    Operation::WriteStable
                } else {
                    Operation::Write
                };
                let data = Data::new(&chain.readable, HEADER_LEN);
                return Ok(engine.transfer(slot, write, range, data, false)?);
            }
            Request::Flush if !self.disk.image.flushes() => return Ok(NOTHING_TO_DO),
            Request::Flush if self.disk.image.has_lost_writes() => {
                return Err(BlockRefusal::LostWrites);
            }
            Request::Change(_, ranges) if ranges.is_empty() => return Ok(NOTHING_TO_DO),
            Request::Change(change, ranges) => {
                pending.volatile = !stable;
                engine.steps(slot, &self.disk.image.steps(change, &ranges, stable))?;
            }
            Request::Flush => engine.flush(slot)?,
            Request::GetId { len } => {
                let written = chain.writable.write(&self.memory, 0, &self.disk.id[..len]);
                written?;
                pending.data_in = len as u64;
                return Ok(NOTHING_TO_DO);
            }
        }
        Ok(Started::InFlight)
    }
}
