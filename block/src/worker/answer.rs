//! Gives requests back to the driver.

use std::io;

use virtio::QueueError;

use super::Worker;
use crate::request::{STATUS_LEN, Status};

/// Number of answered requests after which the used index is updated. A driver that is awake can
/// then process these requests while the worker serves further requests.
const PUBLISH: u32 = 8;

/// Number of answered requests after which the worker sends a call to a sleeping driver. For
/// smaller batches the wake-up would be a third of the work.
const CALL: u32 = 32;

impl Worker<'_> {
    /// Answers the requests that the engine has completed. Returns false if the engine has
    /// completed nothing.
    pub(crate) fn reap(&mut self) -> Result<bool, QueueError> {
        let mut any = false;
        while let Some((slot, result)) = self.engine.next_completion() {
            any = true;
            self.answer(slot, result)?;
        }
        Ok(any)
    }

    /// Whether a flush is needed before the request in this slot is acknowledged. A flush is needed
    /// if the request changed the disk while the write cache was on, and the driver has then turned
    /// the cache off. Returns true only once for each request.
    fn takes_flush(&mut self, slot: u16) -> bool {
        let volatile = std::mem::take(&mut self.pending[usize::from(slot)].volatile);
        volatile && !self.disk.cache.is_writeback()
    }

    /// Answers a completed request. If the request still needs a flush, starts the flush instead.
    pub(super) fn answer(&mut self, slot: u16, result: io::Result<()>) -> Result<(), QueueError> {
        let Err(error) = result else {
            return self.succeeded(slot);
        };
        self.complain(&format_args!("I/O error: {error}"));
        self.give_back(slot, Status::of_error(&error), 0)
    }

    fn succeeded(&mut self, slot: u16) -> Result<(), QueueError> {
        if !self.takes_flush(slot) {
            return self.give_back(slot, Status::Ok, self.pending[usize::from(slot)].data_in);
        }
        match self.engine.flush(slot) {
            Ok(()) => Ok(()),
            Err(_) => self.give_back(slot, Status::IoErr, 0),
        }
    }

    /// Writes the status and gives the request's buffers back. `data_in` is the number of bytes
    /// that the device wrote to the data buffers.
    pub(super) fn give_back(
        &mut self,
        slot: u16,
        status: Status,
        data_in: u64,
    ) -> Result<(), QueueError> {
        self.release(slot);
        let chain = &mut self.pending[usize::from(slot)].chain;
        let written = match chain.writable.len().checked_sub(STATUS_LEN) {
            Some(at) => chain.writable.write(&self.memory, at, &[status as u8]),
            None => Ok(()),
        };
        // If the status cannot be written, the device reports that it wrote 0 bytes to the buffers.
        let written = match written {
            Ok(()) if !chain.writable.is_empty() => data_in + STATUS_LEN,
            _ => 0,
        };
        let written = u32::try_from(written).unwrap_or(u32::MAX);
        self.queue.ring.push_used(chain.head, written)?;
        chain.clear();
        self.used += 1;
        match self.used {
            CALL.. => self.call(),
            used if used.is_multiple_of(PUBLISH) => self.queue.ring.publish(),
            _ => Ok(()),
        }
    }

    /// Makes the requests that were given back visible to the driver. Sends a call if the driver
    /// asked for one.
    pub(crate) fn call(&mut self) -> Result<(), QueueError> {
        if std::mem::take(&mut self.used) == 0 || !self.queue.ring.needs_call()? {
            return Ok(());
        }
        if let Err(error) = self.queue.call() {
            self.complain(&format_args!("the driver is not called any more: {error}"));
        }
        Ok(())
    }

    /// Logs a problem. The first problem is logged as a warning. Later problems are logged at debug
    /// level, because a driver can send any number of bad requests, and must not fill the log with
    /// them.
    pub(super) fn complain(&mut self, problem: &dyn std::fmt::Display) {
        let index = self.queue.index;
        if std::mem::replace(&mut self.complained, true) {
            tracing::debug!("queue {index}: {problem}");
            return;
        }
        tracing::warn!(
            "queue {index}: {problem}; later problems of this queue are logged at debug level"
        );
    }
}
