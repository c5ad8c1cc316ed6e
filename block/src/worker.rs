//! Serves one vring on one thread.

use std::sync::Arc;
use std::time::Instant;

use virtio::{Chain, Found, GuestMemory, QueueError, ServeError, ServedQueue, Sleep, Wake};

use crate::disk::Disk;
use crate::engine::{Engine, EngineKind, Ring, Wakers};
use crate::limit::Gate;

mod accept;
mod answer;
mod limited;
mod spin;

use spin::Spin;

/// Maximum number of requests of one vring in flight. Further requests wait in the vring.
const MAX_IN_FLIGHT: u16 = 1024;

/// While the requests in flight have at least this number of pieces, the worker takes no further
/// request. A piece is an entry of a list that this process keeps for a request: a buffer as the
/// driver gave it, or a buffer as the kernel gets it. This number limits the memory for these
/// lists, because the driver chooses the number of buffers. With 1024 requests in flight, requests
/// of 4 KiB do not reach this number.
const MAX_PIECES_IN_FLIGHT: usize = 16 << 10;

/// Serves one vring.
pub(crate) struct Worker<'a> {
    disk: &'a Disk,
    queue: &'a mut ServedQueue,
    wake: &'a Wake,
    memory: Arc<GuestMemory>,
    /// Whether the data of each write has to be on stable storage before the write is acknowledged,
    /// even if the write cache is on.
    write_through: bool,
    engine: Engine<'a>,
    /// Holds a request while the limits make it wait. `None` if the disk has no limits.
    gate: Option<Gate>,
    /// The busy-wait for the next request while no request is in flight.
    idle: Spin,
    /// The busy-wait for a result while exactly one request is in flight.
    lone: Spin,
    /// The requests in flight. The index is the slot of a request.
    pending: Box<[Pending]>,
    /// The slots that do not hold a request.
    free: Vec<u16>,
    /// Number of pieces of the requests in flight.
    pieces: usize,
    /// Number of requests that were given back since the last check whether the driver needs a
    /// call.
    used: u32,
    /// Whether a problem was logged as a warning. Later problems are logged at debug level.
    complained: bool,
}

#[derive(Default)]
struct Pending {
    chain: Chain,
    /// Number of bytes that the device writes to the data buffers if the request succeeds.
    data_in: u64,
    /// Number of pieces that were counted for the request.
    pieces: usize,
    /// Whether the request changes the disk in a way that is stable only after a flush.
    volatile: bool,
}

impl<'a> Worker<'a> {
    /// A worker for the calling thread.
    pub fn new(
        disk: &'a Disk,
        engine: EngineKind,
        ring: &'a mut Ring,
        queue: &'a mut ServedQueue,
        wake: &'a Wake,
    ) -> Self {
        let slots = queue.ring.size().min(MAX_IN_FLIGHT);
        let memory = queue.memory().clone();
        let wakers = Wakers {
            kick: queue.kick().cloned(),
            stop: wake.event().clone(),
        };
        let (image, data) = (disk.image.clone(), memory.clone());
        Self {
            write_through: disk.cache.is_write_through(queue.features),
            engine: Engine::new(engine, image, data, slots, wakers, ring),
            gate: disk.throttle.clone().map(Gate::new),
            disk,
            queue,
            wake,
            memory,
            idle: Spin::default(),
            lone: Spin::default(),
            pending: (0..slots).map(|_| Pending::default()).collect(),
            free: (0..slots).rev().collect(),
            pieces: 0,
            used: 0,
            complained: false,
        }
    }

    /// Serves requests until a stop is requested. Call [`Worker::finish`] afterwards, also after an
    /// error.
    ///
    /// # Errors
    ///
    /// [`ServeError`] when the vring or the engine has become unusable.
    pub fn serve(&mut self) -> Result<(), ServeError> {
        while !self.wake.is_stop_requested() {
            let taken = self.take_batch();
            let reaped = self.reap()?;
            self.call()?;
            let found = match taken? {
                true => Found::Requests,
                false if reaped => Found::Results,
                false => Found::Nothing,
            };
            self.queue.looked(found);
            if self.can_take()? {
                self.engine.submit()?;
            } else if !self.await_event(found != Found::Nothing)? {
                self.sleep()?;
            }
        }
        Ok(())
    }

    /// Whether the worker can take a request. The vring must have a request, a slot must be free,
    /// and no earlier request may wait at the gate.
    fn can_take(&self) -> Result<bool, QueueError> {
        Ok(self.free_slot().is_some() && !self.is_held() && self.queue.ring.has_requests()?)
    }

    /// Adds `pieces` to the number of pieces of the request in a slot.
    fn count(&mut self, slot: u16, pieces: usize) {
        self.pending[usize::from(slot)].pieces += pieces;
        self.pieces += pieces;
    }

    /// Makes a slot free.
    fn release(&mut self, slot: u16) {
        self.pieces -= std::mem::take(&mut self.pending[usize::from(slot)].pieces);
        self.free.push(slot);
    }

    /// The slot for the next request. `None` if the requests in flight use all slots, or too much
    /// memory.
    fn free_slot(&self) -> Option<u16> {
        let slot = self.free.last().copied();
        slot.filter(|_| self.pieces < MAX_PIECES_IN_FLIGHT)
    }

    /// Busy-waits for a short time if no request or one request is in flight. The wait ends when
    /// the vring has a request, when the request in flight completes, or when a stop is requested.
    /// Returns true if there is something to do.
    fn await_event(&mut self, busy: bool) -> Result<bool, ServeError> {
        let spin = match self.engine.in_flight() {
            0 => &self.idle,
            1 => &self.lone,
            // With several requests in flight, a busy-wait costs more than it saves.
            _ => return Ok(false),
        };
        if !busy || !spin.pays() || self.is_held() {
            return Ok(false);
        }
        let (queue, engine, wake) = (&self.queue.ring, &mut self.engine, self.wake);
        engine.submit()?;
        let found = spin.until(|| {
            let told = wake.is_stop_requested() || engine.has_results();
            Ok::<_, QueueError>(told || queue.has_requests()?)
        })?;
        engine.submit()?;
        Ok(found)
    }

    /// Completes the requests in flight, and turns kicks on for the next worker of this vring. A
    /// request that waits at the gate is put back into the vring.
    ///
    /// # Errors
    ///
    /// [`ServeError`] when the vring or the engine has become unusable.
    pub fn finish(&mut self) -> Result<(), ServeError> {
        self.put_held_back();
        while self.engine.in_flight() > 0 {
            if !self.reap()? {
                self.engine.wait(Sleep::without_kicks(None))?;
            }
            self.call()?;
        }
        self.queue.ring.enable_kick()?;
        Ok(())
    }

    /// Whether every request that was taken has been given back.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn is_idle(&self) -> bool {
        self.engine.in_flight() == 0 && !self.is_held()
    }

    /// Takes requests from the vring, at most as many as the vring has entries. Returns false if
    /// the worker took no request.
    pub(crate) fn take_batch(&mut self) -> Result<bool, QueueError> {
        for taken in 0..self.queue.ring.size() {
            if self.gate.is_some() && self.hold()? {
                return Ok(taken > 0);
            }
            let Some(slot) = self.free_slot() else {
                return Ok(taken > 0);
            };
            let chain = &mut self.pending[usize::from(slot)].chain;
            if !self.queue.ring.pop(chain)? {
                return Ok(taken > 0);
            }
            let pieces = chain.pieces();
            self.count(slot, pieces);
            self.free.pop();
            self.accept(slot)?;
        }
        Ok(true)
    }

    /// Asks the driver to send kicks, and sleeps. Does not sleep if the driver added requests
    /// before it could see that the worker wants kicks.
    fn sleep(&mut self) -> Result<(), ServeError> {
        let held = self.gate.as_ref().and_then(Gate::wait);
        let sleep = if held.is_some() || self.free_slot().is_none() {
            // The worker cannot take requests, so it does not ask for kicks. The sleep ends when an
            // operation completes or when the waiting request may begin.
            Sleep::without_kicks(held)
        } else if self.queue.ring.enable_kick()? {
            return Ok(self.queue.ring.disable_kick()?);
        } else {
            self.queue.next_sleep()
        };
        let (begin, in_flight) = (Instant::now(), self.engine.in_flight());
        self.engine.wait(sleep)?;
        match in_flight {
            _ if held.is_some() => {}
            0 => self.idle.slept(begin.elapsed()),
            1 => self.lone.slept(begin.elapsed()),
            _ => {}
        }
        Ok(self.queue.ring.disable_kick()?)
    }
}

#[cfg(test)]
mod tests;
