//! A started virtqueue as its device sees it, and why a device gives up on it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipc::{Interest, SharedEventFd, poll};

use crate::vring::Notifier;
use crate::wake::Wake;
use crate::{Chain, GuestMemory, Queue, QueueError, Vring, VringLayout};

/// How often a ring without a kick eventfd is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// A started virtqueue, for [`Device::serve`](crate::Device::serve).
///
/// A simple device takes requests by [`ServedQueue::next`] and returns them by
/// [`ServedQueue::give_back`]. One that keeps several requests in flight uses [`ServedQueue::ring`]
/// and waits by itself for [`ServedQueue::kick`] and its [`Wake`].
#[derive(Debug)]
pub struct ServedQueue {
    /// Which of the device's queues it is.
    pub index: u16,
    /// The feature bits that were negotiated.
    pub features: u64,
    /// Where the rings are.
    pub layout: VringLayout,
    /// The checked rings.
    pub ring: Queue,
    kick: Option<Arc<SharedEventFd>>,
    targets: Arc<Targets>,
}

/// Who is told of used buffers, and of a failure. The carrier may replace both at any time.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    call: Mutex<Option<Arc<dyn Notifier>>>,
    error: Mutex<Option<Arc<dyn Notifier>>>,
}

impl Targets {
    pub fn set_call(&self, call: Option<Arc<dyn Notifier>>) {
        set(&self.call, call);
    }

    pub fn set_error(&self, error: Option<Arc<dyn Notifier>>) {
        set(&self.error, error);
    }

    pub fn notify_error(&self) -> io::Result<()> {
        notify(&self.error)
    }
}

fn set(slot: &Mutex<Option<Arc<dyn Notifier>>>, notifier: Option<Arc<dyn Notifier>>) {
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = notifier;
}

/// Notifies without the lock, so that the carrier can replace a notifier that hangs.
fn notify(slot: &Mutex<Option<Arc<dyn Notifier>>>) -> io::Result<()> {
    let notifier = slot.lock().unwrap_or_else(PoisonError::into_inner).clone();
    notifier.map_or(Ok(()), |notifier| notifier.notify())
}

impl ServedQueue {
    pub(crate) fn new(vring: Vring, targets: Arc<Targets>) -> Result<Self, QueueError> {
        let ring = Queue::new(vring.memory, vring.layout, vring.features, vring.next_avail)?;
        targets.set_call(vring.call);
        targets.set_error(vring.error);
        Ok(Self {
            index: vring.index,
            features: vring.features,
            layout: vring.layout,
            ring,
            kick: vring.kick,
            targets,
        })
    }

    /// A queue without a runner, for tests, fuzzers and benchmarks of devices.
    ///
    /// # Errors
    ///
    /// [`QueueError`] when the rings are not inside memory.
    #[cfg(any(test, feature = "test-utils"))]
    pub fn alone(vring: Vring) -> Result<Self, QueueError> {
        Self::new(vring, Arc::default())
    }

    /// The driver's memory.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        self.ring.memory()
    }

    /// Becomes readable when the driver added requests. `None`: the ring has to be polled.
    pub fn kick(&self) -> Option<&Arc<SharedEventFd>> {
        self.kick.as_ref()
    }

    /// Tells the driver that there are used buffers, if it can be told.
    ///
    /// # Errors
    ///
    /// Whatever the carrier's notifier says. Also [`io::ErrorKind::Interrupted`] when the thread
    /// was interrupted in a write that blocked, because it has to stop.
    pub fn call(&self) -> io::Result<()> {
        notify(&self.targets.call)
    }

    /// Takes the next request into `chain`, and waits for it if there is none. False when `wake`
    /// asks to stop.
    ///
    /// # Errors
    ///
    /// [`ServeError`] when the driver broke the ring, or waiting fails.
    pub fn next(&mut self, chain: &mut Chain, wake: &Wake) -> Result<bool, ServeError> {
        while !wake.is_stop_requested() {
            if self.ring.pop(chain)? {
                self.ring.disable_kick()?;
                return Ok(true);
            }
            if !self.ring.enable_kick()? {
                self.sleep(wake)?;
            }
        }
        Ok(false)
    }

    /// Returns a request to which `written` bytes were written, and calls the driver if it wants a
    /// call.
    ///
    /// # Errors
    ///
    /// [`QueueError`] when the rings are no longer inside memory.
    pub fn give_back(&mut self, chain: &Chain, written: u32) -> Result<(), QueueError> {
        self.ring.push_used(chain.head, written)?;
        if self.ring.needs_call()?
            && let Err(error) = self.call()
        {
            tracing::debug!("queue {}: cannot call the driver: {error}", self.index);
        }
        Ok(())
    }

    /// Waits for a kick, for `wake`, or for the next look at a ring without kicks.
    fn sleep(&mut self, wake: &Wake) -> io::Result<()> {
        let Some(kick) = &self.kick else {
            return poll([Interest::readable(wake)], Some(POLL_INTERVAL)).map(drop);
        };
        let interests = [Interest::readable(wake), Interest::readable(&**kick)];
        let [_, kicked] = poll(interests, None)?;
        if kicked && let Err(error) = kick.take() {
            tracing::warn!(
                "queue {}: polls its ring, as its kick is unusable: {error}",
                self.index
            );
            self.kick = None;
        }
        Ok(())
    }
}

/// Why a queue ended although nobody asked it to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The driver broke the ring.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The operating system refused what it allowed before.
    #[error("cannot wait for requests or their results")]
    Wait(#[from] io::Error),
}
