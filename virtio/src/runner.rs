//! Runs the queues of one device.
//!
//! The runner creates a queue's thread at the first start of the queue, and keeps the thread until
//! the runner is dropped. A start gives a vring to the thread, and a stop takes the vring back. The
//! notifiers of a running vring can be replaced at any time without a stop. The runner reports
//! failures and panics of the device.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;

use crate::memory::survive_losses;
use crate::queue::{IN_ORDER, PACKED, RING_FEATURES};
use crate::silence::{FirstRequest, NoRequests};
use crate::vring::Notifier;
use crate::{Device, Vring};

mod error;
mod thread;

pub use error::{StartError, StopError};

use thread::QueueThread;

/// The time that a stop waits for requests in flight. Storage normally completes a request, or
/// reports an error for the request, in less time.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// The kinds of virtqueue that the runner offers to drivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingOptions {
    /// The maximum size of a queue, in descriptors: a power of two, at most 32768.
    pub max_size: u16,
    /// Whether drivers may use packed virtqueues.
    pub packed: bool,
    /// Whether VIRTIO_F_IN_ORDER is offered. If a driver accepts VIRTIO_F_IN_ORDER, the device
    /// gives buffers back in the order in which the driver made them available, even if a later
    /// buffer is ready first.
    pub in_order: bool,
}

impl Default for RingOptions {
    /// Split or packed queues of at most 128 descriptors. The device may give buffers back in any
    /// order.
    fn default() -> Self {
        Self {
            max_size: 128,
            packed: true,
            in_order: false,
        }
    }
}

/// A device and its queues.
///
/// Dropping the runner stops all queues and ends their threads.
///
/// # Examples
///
/// A complete device, and the calls of its carrier and its driver:
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use ipc::{Interest, SharedEventFd, poll};
/// # use virtio::test_utils::{DriverRing, memory};
/// use virtio::{
///     Chain, Device, DeviceKind, RingOptions, Runner, ServeError, ServedQueue, Vring, Wake,
/// };
///
/// /// Writes a greeting into each request.
/// struct Greeter;
///
/// impl Device for Greeter {
///     fn kind(&self) -> DeviceKind {
///         DeviceKind { id: 42, class: 0xff_0000 }
///     }
///
///     fn features(&self) -> u64 {
///         0
///     }
///
///     fn queue_count(&self) -> u16 {
///         1
///     }
///
///     fn serve(&self, queue: &mut ServedQueue, wake: &Wake) -> Result<(), ServeError> {
///         let mut chain = Chain::default();
///         while queue.next(&mut chain, wake)? {
///             // The driver may have named a buffer that is too short or not in its memory.
///             let greeted = chain.writable.write(queue.memory(), 0, b"hello").is_ok();
///             queue.give_back(&chain, if greeted { 5 } else { 0 })?;
///         }
///         Ok(())
///     }
/// }
///
/// // The carrier makes a vring of what the driver told it, and starts it.
/// let memory = memory(0x10000);
/// let mut driver = DriverRing::new(memory.clone(), 0, 16);
/// let (kick, call) = (Arc::new(SharedEventFd::new()?), Arc::new(SharedEventFd::new()?));
/// let mut runner = Runner::new(Arc::new(Greeter), RingOptions::default());
/// runner.start(Vring {
///     index: 0,
///     features: 1 << 32, // VIRTIO_F_VERSION_1
///     layout: driver.layout(),
///     next_avail: 0,
///     memory,
///     kick: Some(kick.clone()),
///     call: Some(call.clone()),
///     error: None,
/// })?;
///
/// // The driver is called when the queue starts.
/// let is_called = || poll([Interest::readable(&*call)], Some(Duration::from_secs(20)));
/// assert_eq!(is_called()?, [true]);
/// call.take()?;
///
/// // The driver offers a buffer of 64 bytes, kicks, and is called.
/// driver.add(&[(0x8000, 64, true)]);
/// kick.signal()?;
/// assert_eq!(is_called()?, [true]);
/// assert_eq!(driver.pop_used(), Some((0, 5)));
///
/// runner.stop_all()?;
/// assert_eq!(runner.next_avail(0), Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Runner {
    device: Arc<dyn Device>,
    rings: RingOptions,
    queues: Box<[Slot]>,
    stop_deadline: Duration,
    /// Records whether a request of the present driver was found. All queues share this record.
    first_request: Arc<FirstRequest>,
}

/// One queue of the device.
#[derive(Default)]
struct Slot {
    /// The thread of the queue. `None` until the first start.
    thread: Option<QueueThread>,
    /// Whether the queue was started, and has not been stopped since then. A started queue may have
    /// failed.
    started: bool,
}

impl Runner {
    /// A runner for this device. No queue is started yet.
    pub fn new(device: Arc<dyn Device>, rings: RingOptions) -> Self {
        let queues = (0..device.queue_count()).map(|_| Slot::default());
        Self {
            queues: queues.collect(),
            device,
            rings,
            stop_deadline: STOP_DEADLINE,
            first_request: Arc::default(),
        }
    }

    /// Calls `hint`, instead of logging a warning, when the driver kicks but none of its requests
    /// is found. Calls `hint` at most once for each driver, from the thread of a queue.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Fn(NoRequests) + Send + Sync + 'static) -> Self {
        self.first_request = FirstRequest::awaited(Arc::new(hint));
        self
    }

    /// Changes the time that a stop waits for requests in flight. The default is 30 seconds.
    #[must_use]
    pub fn with_stop_deadline(mut self, deadline: Duration) -> Self {
        self.stop_deadline = deadline;
        self
    }

    /// The device that the runner runs.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// Prepares for a jail. Installs the signal handler that [survives the loss of
    /// memory](survive_losses), and calls [`Device::prepare`].
    ///
    /// # Errors
    ///
    /// When the operating system refuses the signal handler, or a resource that the device needs.
    pub fn prepare(&self) -> io::Result<()> {
        survive_losses()?;
        self.device.prepare()
    }

    /// All feature bits to offer to drivers: the device's feature bits, the rings' feature bits,
    /// and VIRTIO_F_VERSION_1.
    pub fn features(&self) -> u64 {
        let packed = if self.rings.packed { PACKED } else { 0 };
        let in_order = if self.rings.in_order { IN_ORDER } else { 0 };
        self.device.features() | RING_FEATURES | packed | in_order | 1 << VIRTIO_F_VERSION_1
    }

    /// Number of queues, 1 to 256.
    pub fn queue_count(&self) -> u16 {
        // The length fits a u16, because `Device::queue_count` is a u16.
        self.queues.len() as u16
    }

    /// The maximum queue size to offer to drivers.
    pub fn max_queue_size(&self) -> u16 {
        self.rings.max_size
    }

    /// Starts to serve a vring on its queue's thread. The thread first notifies the driver of used
    /// buffers, because a device that served the vring before may have ended between its last used
    /// buffer and the notification. A driver that asks for no notifications gets none.
    ///
    /// # Errors
    ///
    /// [`StartError`]. The queue is then not started.
    pub fn start(&mut self, vring: Vring) -> Result<(), StartError> {
        let index = vring.index;
        let slot = self.queues.get_mut(usize::from(index));
        let slot = slot.ok_or(StartError::NoSuchQueue(index))?;
        if slot.started {
            return Err(StartError::Running(index));
        }
        let thread = match &mut slot.thread {
            Some(thread) => thread,
            empty => empty.insert(QueueThread::spawn(index, self.device.clone())?),
        };
        thread.start(vring, self.first_request.clone())?;
        slot.started = true;
        Ok(())
    }

    /// Notes that the queues which start from now on belong to another driver.
    pub fn forget_driver(&mut self) {
        self.first_request = self.first_request.again();
    }

    /// Whether a queue was started, and has not been stopped since then.
    pub fn is_started(&self, queue: u16) -> bool {
        self.slot(queue).is_some_and(|slot| slot.started)
    }

    /// Whether a started queue has failed. A failed queue is no longer served.
    pub fn has_failed(&self, queue: u16) -> bool {
        let failed =
            |slot: &Slot| slot.started && slot.thread.as_ref().is_some_and(QueueThread::has_failed);
        self.slot(queue).is_some_and(failed)
    }

    /// Replaces the notifier for used buffers of a started queue. With `None` the driver polls the
    /// queue.
    pub fn set_call(&self, queue: u16, call: Option<Arc<dyn Notifier>>) {
        if let Some(thread) = self.thread(queue) {
            thread.targets().set_call(call);
        }
    }

    /// Replaces the notifier for the failure of a started queue.
    pub fn set_error(&self, queue: u16, error: Option<Arc<dyn Notifier>>) {
        if let Some(thread) = self.thread(queue) {
            thread.targets().set_error(error);
        }
    }

    /// Stops the given queues. First asks all of them to stop, and then waits for all of them, with
    /// one common deadline. Skips queues that are not started. After a queue has stopped, the
    /// device no longer accesses the driver's memory for this queue.
    ///
    /// # Errors
    ///
    /// [`StopError`] for the first queue that did not stop in time. All queues that did not stop in
    /// time stay started.
    pub fn stop(&mut self, queues: impl IntoIterator<Item = u16>) -> Result<(), StopError> {
        let queues: Vec<u16> = queues
            .into_iter()
            .filter(|&queue| self.is_started(queue))
            .collect();
        for &queue in &queues {
            self.thread(queue).inspect(|thread| thread.ask_to_stop());
        }
        let deadline = Instant::now() + self.stop_deadline;
        let mut result = Ok(());
        for queue in queues {
            let slot = &mut self.queues[usize::from(queue)];
            let stopped = slot
                .thread
                .as_ref()
                .is_none_or(|thread| thread.wait_idle(deadline));
            slot.started = !stopped;
            if !stopped && result.is_ok() {
                let waited = self.stop_deadline;
                result = Err(StopError { queue, waited });
            }
        }
        result
    }

    /// Stops all queues, as [`Runner::stop`] does.
    ///
    /// # Errors
    ///
    /// The same errors as [`Runner::stop`].
    pub fn stop_all(&mut self) -> Result<(), StopError> {
        self.stop(0..self.queue_count())
    }

    /// The position of the first request that the device did not take from a stopped queue, in the
    /// encoding of [`Vring::next_avail`]. `None` if the queue was never started.
    pub fn next_avail(&self, queue: u16) -> Option<u16> {
        self.thread(queue)?.next_avail()
    }

    fn slot(&self, queue: u16) -> Option<&Slot> {
        self.queues.get(usize::from(queue))
    }

    fn thread(&self, queue: u16) -> Option<&QueueThread> {
        self.slot(queue)?.thread.as_ref()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        if let Err(error) = self.stop_all() {
            tracing::error!("{error}");
        }
    }
}

#[cfg(test)]
mod tests;
