//! A started virtqueue, as the runner passes it to the device, and the reasons for which a device
//! stops serving the queue.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use ipc::SharedEventFd;

use crate::silence::FirstRequest;
use crate::vring::Notifier;
use crate::waiting::{Found, Sleep, Waiting};
use crate::wake::Wake;
use crate::{Chain, GuestMemory, Queue, QueueError, Vring, VringLayout};

/// A started virtqueue, for [`Device::serve`](crate::Device::serve).
///
/// A simple device takes requests with [`ServedQueue::next`] and returns them with
/// [`ServedQueue::give_back`]. A device that keeps several requests in flight uses
/// [`ServedQueue::ring`] and does its own sleeping, with the limits that
/// [`ServedQueue::next_sleep`] returns.
#[derive(Debug)]
pub struct ServedQueue {
    /// The index of the queue in its device.
    pub index: u16,
    /// The feature bits that were negotiated.
    pub features: u64,
    /// The layout of the virtqueue.
    pub layout: VringLayout,
    /// The virtqueue, whose layout was checked when the queue was started.
    pub ring: Queue,
    kick: Option<Arc<SharedEventFd>>,
    targets: Arc<Targets>,
    waiting: Waiting,
}

/// The queue's notifiers for used buffers and for a failure. The carrier may replace both at any
/// time.
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

/// Sends the notification after the lock is released, so that the carrier can replace a notifier
/// that blocks. A notifier that fails is removed. Otherwise, a peer could delay each notification
/// by some milliseconds.
fn notify(slot: &Mutex<Option<Arc<dyn Notifier>>>) -> io::Result<()> {
    let lock = || slot.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(notifier) = lock().clone() else {
        return Ok(());
    };
    notifier.notify().inspect_err(|_| {
        lock().take_if(|present| Arc::ptr_eq(present, &notifier));
    })
}

impl ServedQueue {
    /// `first` records, for all queues of the device, whether a request of the driver was found.
    pub(crate) fn new(
        vring: Vring,
        targets: Arc<Targets>,
        first: Arc<FirstRequest>,
    ) -> Result<Self, QueueError> {
        let ring = Queue::new(vring.memory, vring.layout, vring.features, vring.next_avail)?;
        targets.set_call(vring.call);
        targets.set_error(vring.error);
        Ok(Self {
            index: vring.index,
            features: vring.features,
            layout: vring.layout,
            ring,
            waiting: Waiting::new(vring.kick.is_some(), first),
            kick: vring.kick,
            targets,
        })
    }

    /// A `ServedQueue` without a runner, for tests, fuzzers and benchmarks of devices.
    ///
    /// # Errors
    ///
    /// [`QueueError`] when the layout is invalid or not inside memory.
    #[cfg(any(test, feature = "test-utils"))]
    pub fn alone(vring: Vring) -> Result<Self, QueueError> {
        Self::new(vring, Arc::default(), Arc::default())
    }

    /// The driver's memory.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        self.ring.memory()
    }

    /// The eventfd that becomes readable when the driver has added requests. `None` if the driver
    /// does not kick.
    pub fn kick(&self) -> Option<&Arc<SharedEventFd>> {
        self.kick.as_ref()
    }

    /// Notifies the driver of used buffers, if the carrier has set a notifier for used buffers.
    ///
    /// # Errors
    ///
    /// The error of the carrier's notifier. After an error, the queue does not use this notifier
    /// again: later calls do nothing until the carrier sets another notifier.
    pub fn call(&self) -> io::Result<()> {
        notify(&self.targets.call)
    }

    /// Waits for the next request and takes it into `chain`. Returns false if a stop was requested
    /// through `wake`.
    ///
    /// # Errors
    ///
    /// [`ServeError`] when the driver broke the rules of virtio for the vring, or when waiting
    /// fails.
    pub fn next(&mut self, chain: &mut Chain, wake: &Wake) -> Result<bool, ServeError> {
        while !wake.is_stop_requested() {
            if self.ring.pop(chain)? {
                self.looked(Found::Requests);
                self.ring.disable_kick()?;
                return Ok(true);
            }
            self.looked(Found::Nothing);
            if !self.ring.enable_kick()? {
                let sleep = self.next_sleep();
                sleep.until(wake.event(), self.kick.as_deref())?;
            }
        }
        Ok(false)
    }

    /// How long to sleep before the next look at the ring, and whether a kick ends the sleep. The
    /// queue's [`Wake`] has to end the sleep, too. A device that does its own sleeping calls this
    /// method before each sleep, and [`ServedQueue::looked`] after it.
    pub fn next_sleep(&mut self) -> Sleep {
        self.waiting.next_sleep()
    }

    /// Records what the queue's thread found to do. A device that does its own sleeping calls this
    /// method after each sleep, and may call it more often.
    pub fn looked(&mut self, found: Found) {
        self.waiting.looked(self.index, found);
    }

    /// Gives a request back after the device wrote `written` bytes to the request's buffers.
    /// Notifies the driver if the driver asked for a notification.
    ///
    /// # Errors
    ///
    /// [`QueueError`] when the vring is no longer inside memory.
    pub fn give_back(&mut self, chain: &Chain, written: u32) -> Result<(), QueueError> {
        self.ring.push_used(chain.head, written)?;
        if self.ring.needs_call()? {
            self.call_or_warn();
        }
        Ok(())
    }

    /// Notifies the driver once, unless the driver asks for no notifications. The device that
    /// served this vring before may have ended between its last used buffer and the notification.
    pub(crate) fn call_at_start(&self) -> Result<(), QueueError> {
        if !self.ring.calls_are_off()? {
            self.call_or_warn();
        }
        Ok(())
    }

    /// Notifies the driver of used buffers, as [`ServedQueue::call`] does, and logs an error.
    fn call_or_warn(&self) {
        let index = self.index;
        if let Err(error) = self.call() {
            tracing::warn!("queue {index}: the driver is not called any more: {error}");
        }
    }
}

/// The reason for which a device stopped serving a queue although nothing had requested a stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The driver broke the rules of virtio for the vring, or unmapped the vring's memory.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// A system call that waits for events failed.
    #[error("cannot wait for requests or their results")]
    Wait(#[from] io::Error),
}
