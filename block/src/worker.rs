//! Serves one vring on one thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Instant;

use vmm_sys_util::eventfd::EventFd;

use virtio::{Chain, GuestMemory, Notifier, Queue, QueueError};

use crate::Image;
use crate::engine::{Engine, EngineKind, Wakers};
use crate::limit::{Gate, Throttle};
use crate::request::ID_LEN;

mod answer;
mod begin;
mod limited;
mod spin;

use spin::Spin;

/// The most requests of one vring that are in flight; more wait in the ring.
const MAX_IN_FLIGHT: u16 = 1024;

/// What a worker is made of. Becomes a [`Worker`] on the thread that runs it.
pub(crate) struct Setup {
    /// Which queue it is, for the log.
    pub index: u16,
    pub engine: EngineKind,
    pub image: Arc<Image>,
    pub id: [u8; ID_LEN],
    /// The driver does not flush, so each write has to be stable when it is acknowledged.
    pub write_through: bool,
    pub queue: Queue,
    pub kick: Option<Arc<EventFd>>,
    pub call: Option<Arc<dyn Notifier>>,
    /// The disk's limits, which all queues share.
    pub throttle: Option<Arc<Throttle>>,
    pub shared: Arc<Shared>,
}

/// What a worker and the thread that stops it have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Take no more requests.
    pub stop: AtomicBool,
    /// Written after `stop` was set.
    pub wake: Arc<EventFd>,
    /// The first request that was not taken.
    pub next_avail: AtomicU16,
}

/// Why a worker ended although nobody stopped it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The driver broke the ring.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The kernel refused what it allowed before.
    #[error("I/O engine failed: {0}")]
    Engine(#[from] io::Error),
}

/// One vring being served.
pub(crate) struct Worker {
    index: u16,
    image: Arc<Image>,
    id: [u8; ID_LEN],
    /// Each write has to be stable when it is acknowledged, whatever the image's mode.
    write_through: bool,
    queue: Queue,
    memory: Arc<GuestMemory>,
    call: Option<Arc<dyn Notifier>>,
    shared: Arc<Shared>,
    engine: Engine,
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

impl Worker {
    pub fn new(setup: Setup) -> Self {
        let slots = setup.queue.size().min(MAX_IN_FLIGHT);
        let memory = setup.queue.memory().clone();
        let wakers = Wakers {
            kick: setup.kick,
            stop: setup.shared.wake.clone(),
        };
        let engine = Engine::new(
            setup.engine,
            setup.image.clone(),
            memory.clone(),
            slots,
            wakers,
        );
        Self {
            index: setup.index,
            image: setup.image,
            id: setup.id,
            write_through: setup.write_through,
            queue: setup.queue,
            memory,
            call: setup.call,
            shared: setup.shared,
            engine,
            gate: setup.throttle.map(Gate::new),
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
    /// [`Failure`] when it had to end before. [`Worker::finish`] is due in any case.
    pub fn serve(&mut self) -> Result<(), Failure> {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let taken = self.take_batch();
            self.shared
                .next_avail
                .store(self.queue.next_avail(), Ordering::Relaxed);
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
        Ok(!self.free.is_empty() && !self.is_held() && self.queue.has_requests()?)
    }

    /// Looks for a while, without sleeping, for what often comes soon: the next request where none is
    /// in flight, or the end of one that is alone. True when there is something to do.
    fn await_event(&mut self, busy: bool) -> Result<bool, Failure> {
        let spin = match self.engine.in_flight() {
            0 => &self.idle,
            1 => &self.lone,
            // Whoever has more of them has less of waiting for each.
            _ => return Ok(false),
        };
        if !busy || !spin.pays() || self.is_held() {
            return Ok(false);
        }
        let (queue, engine, stop) = (&self.queue, &mut self.engine, &self.shared.stop);
        engine.submit()?;
        let found = spin.until(|| {
            let told = stop.load(Ordering::Relaxed) || engine.has_ended();
            Ok::<_, QueueError>(told || queue.has_requests()?)
        })?;
        engine.submit()?;
        Ok(found)
    }

    /// Ends what is in flight and leaves the ring to whoever comes next.
    ///
    /// # Errors
    ///
    /// [`Failure`] when the ring or the engine has become unusable.
    pub fn finish(&mut self) -> Result<(), Failure> {
        self.stop_holding()?;
        // What was held may have been done at once.
        self.call()?;
        while self.engine.in_flight() > 0 {
            if !self.reap()? {
                self.engine.wait(None)?;
            }
            self.call()?;
        }
        self.queue.enable_kick()?;
        Ok(())
    }

    /// True when nothing that was taken is in flight.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn is_idle(&self) -> bool {
        self.engine.in_flight() == 0 && !self.is_held()
    }

    /// Takes what is in the ring, one queue length at most; false when there was nothing.
    pub(crate) fn take_batch(&mut self) -> Result<bool, QueueError> {
        for taken in 0..self.queue.size() {
            if self.gate.is_some() && self.hold()? {
                return Ok(taken > 0);
            }
            let Some(&slot) = self.free.last() else {
                return Ok(taken > 0);
            };
            let chain = &mut self.pending[usize::from(slot)].chain;
            if !self.queue.pop(chain)? {
                return Ok(taken > 0);
            }
            self.free.pop();
            self.begin(slot)?;
        }
        Ok(true)
    }

    /// Asks for kicks and sleeps, unless requests came in between.
    fn sleep(&mut self) -> Result<(), Failure> {
        // Without a free slot no request can be taken, and an ended one wakes us anyway.
        let held = self.gate.as_ref().and_then(Gate::wait);
        if held.is_none() && !self.free.is_empty() && self.queue.enable_kick()? {
            return Ok(self.queue.disable_kick()?);
        }
        let (begin, in_flight) = (Instant::now(), self.engine.in_flight());
        self.engine.wait(held)?;
        match in_flight {
            _ if held.is_some() => {}
            0 => self.idle.slept(begin.elapsed()),
            1 => self.lone.slept(begin.elapsed()),
            _ => {}
        }
        Ok(self.queue.disable_kick()?)
    }
}

#[cfg(test)]
mod tests;
