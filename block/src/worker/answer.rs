//! From the engine to the used ring.

use std::io;

use virtio::QueueError;

use super::Worker;
use crate::request::{STATUS_LEN, Status};

/// After so many requests a driver that is awake sees them, and can go on while the rest is worked on.
const PUBLISH: u32 = 8;

/// After so many it is called if it sleeps. Of less, waking it up would be a third of the work.
const CALL: u32 = 32;

impl Worker<'_> {
    /// Gives back what the engine has ended; false when that was nothing.
    pub(crate) fn reap(&mut self) -> Result<bool, QueueError> {
        let mut any = false;
        while let Some((slot, result)) = self.engine.next_ended() {
            any = true;
            self.ended(slot, result)?;
        }
        Ok(any)
    }

    /// True, once, for a change that was begun before the driver turned its cache off, as it must be
    /// stable by now.
    fn is_to_be_flushed(&mut self, slot: u16) -> bool {
        let volatile = std::mem::take(&mut self.pending[usize::from(slot)].volatile);
        volatile && !self.disk.cache.is_writeback()
    }

    /// Answers a request that the engine has ended.
    pub(super) fn ended(&mut self, slot: u16, result: io::Result<()>) -> Result<(), QueueError> {
        let Err(error) = result else {
            return self.succeeded(slot);
        };
        self.complain(&format_args!("I/O error: {error}"));
        self.end(slot, Status::of_error(&error), 0)
    }

    fn succeeded(&mut self, slot: u16) -> Result<(), QueueError> {
        if !self.is_to_be_flushed(slot) {
            return self.end(slot, Status::Ok, self.pending[usize::from(slot)].data_in);
        }
        match self.engine.flush(slot) {
            Ok(()) => Ok(()),
            Err(_) => self.end(slot, Status::IoErr, 0),
        }
    }

    /// Writes the status and gives the buffers back.
    pub(super) fn end(
        &mut self,
        slot: u16,
        status: Status,
        data_in: u64,
    ) -> Result<(), QueueError> {
        self.free.push(slot);
        let chain = &self.pending[usize::from(slot)].chain;
        let written = match chain.writable.len().checked_sub(STATUS_LEN) {
            Some(at) => chain.writable.write(&self.memory, at, &[status as u8]),
            None => Ok(()),
        };
        // Without a place for the status the driver gets its buffers back, with nothing written.
        let written = match written {
            Ok(()) if !chain.writable.is_empty() => data_in + STATUS_LEN,
            _ => 0,
        };
        let written = u32::try_from(written).unwrap_or(u32::MAX);
        self.queue.ring.push_used(chain.head, written)?;
        self.used += 1;
        match self.used {
            CALL.. => self.call(),
            used if used.is_multiple_of(PUBLISH) => self.queue.ring.publish(),
            _ => Ok(()),
        }
    }

    /// Shows the driver the buffers given back, and calls it if it wants that.
    pub(crate) fn call(&mut self) -> Result<(), QueueError> {
        if std::mem::take(&mut self.used) == 0 || !self.queue.ring.needs_call()? {
            return Ok(());
        }
        if let Err(error) = self.queue.call() {
            self.complain(&format_args!("cannot call the driver: {error}"));
        }
        Ok(())
    }

    /// A driver decides how many bad requests it sends, so it must not fill the log with them.
    pub(super) fn complain(&mut self, problem: &dyn std::fmt::Display) {
        let index = self.queue.index;
        if std::mem::replace(&mut self.complained, true) {
            tracing::debug!("queue {index}: {problem}");
            return;
        }
        tracing::warn!("queue {index}: {problem}; more of the like is logged at debug level");
    }
}
