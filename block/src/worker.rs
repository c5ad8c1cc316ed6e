//! Serves one vring on one thread.

use std::sync::Arc;
use std::time::Instant;

use virtio::{Chain, GuestMemory, QueueError, ServeError, ServedQueue, Wake};

use crate::device::Disk;
use crate::engine::{Engine, EngineKind, Ring, Wakers};
use crate::limit::Gate;

mod answer;
mod begin;
mod limited;
mod spin;

use spin::Spin;

/// The most requests of one vring that are in flight; more wait in the ring.
const MAX_IN_FLIGHT: u16 = 1024;

/// One vring being served.
pub(crate) struct Worker<'a> {
    disk: &'a Disk,
    queue: &'a mut ServedQueue,
    wake: &'a Wake,
    memory: Arc<GuestMemory>,
    /// The driver does not flush, so each write has to be stable when it is acknowledged.
    write_through: bool,
    engine: Engine<'a>,
    /// Where a request waits, if the disk has limits.
    gate: Option<Gate>,
    /// Waiting for the next request.
    idle: Spin,
    /// Waiting for the only request in flight.
    lone: Spin,
    /// The requests in flight, by slot.
    pending: Box<[Pending]>,
    /// Slots without a request.
    free: Vec<u16>,
    /// How many buffers were given back since the driver was told.
    used: u32,
    /// A request was refused or failed before, which need not be said so loud again.
    complained: bool,
}

#[derive(Default)]
struct Pending {
    chain: Chain,
    /// Bytes that a success will have put into the data buffers.
    data_in: u64,
    /// It is a change that is not stable by itself.
    volatile: bool,
}

impl<'a> Worker<'a> {
    /// A worker on the calling thread.
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
        let (image, place) = (disk.image.clone(), memory.clone());
        Self {
            write_through: disk.cache.is_write_through(queue.features),
            engine: Engine::new(engine, image, place, slots, wakers, ring),
            gate: disk.throttle.clone().map(Gate::new),
            disk,
            queue,
            wake,
            memory,
            idle: Spin::default(),
            lone: Spin::default(),
            pending: (0..slots).map(|_| Pending::default()).collect(),
            free: (0..slots).rev().collect(),
            used: 0,
            complained: false,
        }
    }

    /// Serves requests until it is told to stop.
    ///
    /// # Errors
    ///
    /// [`ServeError`] when it had to end before. [`Worker::finish`] is due in any case.
    pub fn serve(&mut self) -> Result<(), ServeError> {
        while !self.wake.is_stop_requested() {
            let taken = self.take_batch();
            let reaped = self.reap()?;
            self.call()?;
            let busy = taken? || reaped;
            if self.can_take()? {
                self.engine.submit()?;
            } else if !self.await_event(busy)? {
                self.sleep()?;
            }
        }
        Ok(())
    }

    /// Whether there is a request, a slot for it, and none before it that waits.
    fn can_take(&self) -> Result<bool, QueueError> {
        Ok(!self.free.is_empty() && !self.is_held() && self.queue.ring.has_requests()?)
    }

    /// Looks for a while, without sleeping, for what often comes soon: the next request where none is
    /// in flight, or the end of one that is alone. True when there is something to do.
    fn await_event(&mut self, busy: bool) -> Result<bool, ServeError> {
        let spin = match self.engine.in_flight() {
            0 => &self.idle,
            1 => &self.lone,
            // Whoever has more of them has less of waiting for each.
            _ => return Ok(false),
        };
        if !busy || !spin.pays() || self.is_held() {
            return Ok(false);
        }
        let (queue, engine, wake) = (&self.queue.ring, &mut self.engine, self.wake);
        engine.submit()?;
        let found = spin.until(|| {
            let told = wake.is_stop_requested() || engine.has_ended();
            Ok::<_, QueueError>(told || queue.has_requests()?)
        })?;
        engine.submit()?;
        Ok(found)
    }

    /// Ends what is in flight and leaves the ring to whoever comes next.
    ///
    /// # Errors
    ///
    /// [`ServeError`] when the ring or the engine has become unusable.
    pub fn finish(&mut self) -> Result<(), ServeError> {
        self.stop_holding()?;
        // What was held may have been done at once.
        self.call()?;
        while self.engine.in_flight() > 0 {
            if !self.reap()? {
                self.engine.wait(None)?;
            }
            self.call()?;
        }
        self.queue.ring.enable_kick()?;
        Ok(())
    }

    /// True when nothing that was taken is in flight.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn is_idle(&self) -> bool {
        self.engine.in_flight() == 0 && !self.is_held()
    }

    /// Takes what is in the ring, one queue length at most; false when there was nothing.
    pub(crate) fn take_batch(&mut self) -> Result<bool, QueueError> {
        for taken in 0..self.queue.ring.size() {
            if self.gate.is_some() && self.hold()? {
                return Ok(taken > 0);
            }
            let Some(&slot) = self.free.last() else {
                return Ok(taken > 0);
            };
            let chain = &mut self.pending[usize::from(slot)].chain;
            if !self.queue.ring.pop(chain)? {
                return Ok(taken > 0);
            }
            self.free.pop();
            self.begin(slot)?;
        }
        Ok(true)
    }

    /// Asks for kicks and sleeps, unless requests came in between.
    fn sleep(&mut self) -> Result<(), ServeError> {
        // Without a free slot no request can be taken, and an ended one wakes us anyway.
        let held = self.gate.as_ref().and_then(Gate::wait);
        if held.is_none() && !self.free.is_empty() && self.queue.ring.enable_kick()? {
            return Ok(self.queue.ring.disable_kick()?);
        }
        let (begin, in_flight) = (Instant::now(), self.engine.in_flight());
        self.engine.wait(held)?;
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
