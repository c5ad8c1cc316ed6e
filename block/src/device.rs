//! The device as its carrier sees it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::{self, JoinHandle};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use virtio::queue::{IN_ORDER, PACKED, RING_FEATURES};
use virtio::{ConfigError, Device, Notifier, Queue, RunningVring, StartError, Vring};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SECURE_ERASE, VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;

use crate::Image;
use crate::config::{Config, WRITEBACK};
use crate::engine::EngineKind;
use crate::limit::{RateLimits, Throttle};
use crate::request::ID_LEN;
use crate::worker::{Setup, Shared, Worker};

/// The most request queues a device may have.
pub const MAX_QUEUES: u16 = 256;

/// The largest queue size a device may offer.
pub const MAX_QUEUE_SIZE: u16 = 32768;

/// The most data segments that are offered, whatever the queue's size; what drivers commonly use.
const MAX_SEGMENTS: u16 = 254;

/// What is up to whoever sets the device up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of request queues, 1 to [`MAX_QUEUES`].
    pub queues: u16,
    /// The largest queue size offered: a power of two, 1 to [`MAX_QUEUE_SIZE`].
    pub queue_size: u16,
    /// Whether packed virtqueues are offered.
    pub packed: bool,
    /// Whether it is offered that buffers are used in order, whatever is ready first.
    pub in_order: bool,
    /// What the driver sees as the disk's serial number, [`ID_LEN`] bytes at most.
    pub serial: String,
}

impl Default for Options {
    /// One queue of 128 descriptors, packed or not, without a serial number.
    fn default() -> Self {
        Self {
            queues: 1,
            queue_size: 128,
            packed: true,
            in_order: false,
            serial: String::new(),
        }
    }
}

/// An option that the device cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// None, or more than [`MAX_QUEUES`].
    #[error("{0} queues: the device takes 1 to {MAX_QUEUES}")]
    Queues(u16),
    /// No power of two, or more than [`MAX_QUEUE_SIZE`].
    #[error("queue size {0}: it has to be a power of two, {MAX_QUEUE_SIZE} at most")]
    QueueSize(u16),
    /// Longer than [`ID_LEN`] bytes.
    #[error("serial number \"{0}\" is longer than {ID_LEN} bytes")]
    Serial(String),
}

/// A virtio block device (virtio 1.2, section 5.2) that serves one image.
#[derive(Debug)]
pub struct BlockDevice {
    image: Arc<Image>,
    queues: u16,
    queue_size: u16,
    /// The features of rings that only some drivers want.
    rings: u64,
    id: [u8; ID_LEN],
    engine: EngineKind,
    throttle: Option<Arc<Throttle>>,
}

impl BlockDevice {
    /// A device that serves `image`.
    ///
    /// # Errors
    ///
    /// See [`DeviceError`].
    pub fn new(image: Arc<Image>, options: Options) -> Result<Self, DeviceError> {
        if !(1..=MAX_QUEUES).contains(&options.queues) {
            return Err(DeviceError::Queues(options.queues));
        }
        // 32768 is the largest power of two that fits, so this is the upper limit, too.
        if !options.queue_size.is_power_of_two() {
            return Err(DeviceError::QueueSize(options.queue_size));
        }
        Ok(Self {
            image,
            queues: options.queues,
            queue_size: options.queue_size,
            rings: (PACKED * u64::from(options.packed)) | (IN_ORDER * u64::from(options.in_order)),
            id: padded_id(options.serial)?,
            engine: EngineKind::Auto,
            throttle: None,
        })
    }

    /// The same device, with its system calls made in another way than the default.
    #[must_use]
    pub fn with_engine(mut self, engine: EngineKind) -> Self {
        self.engine = engine;
        self
    }

    /// The same device, no faster than this.
    #[must_use]
    pub fn with_limits(mut self, limits: RateLimits) -> Self {
        self.throttle = limits.any().then(|| Arc::new(Throttle::new(limits)));
        self
    }

    fn config(&self) -> Config {
        // A chain has a header and a status besides its data.
        let segments = self.queue_size.saturating_sub(2).clamp(1, MAX_SEGMENTS);
        Config {
            seg_max: segments.into(),
            num_queues: self.queues,
            ..Config::of_image(&self.image)
        }
    }

    /// Whether each write has to be stable for a driver with these features, whatever the mode
    /// that a driver, perhaps an earlier one, has chosen.
    fn is_write_through(&self, features: u64) -> bool {
        let has = |feature: u32| features & (1 << feature) != 0;
        // Virtio 1.2, section 5.2.6.2: stable once completed, if there are no flushes.
        !has(VIRTIO_BLK_F_FLUSH)
            || !has(VIRTIO_BLK_F_CONFIG_WCE) && self.image.starts_write_through()
    }

    fn setup(&self, vring: &Vring, shared: Arc<Shared>) -> Result<Setup, StartError> {
        let queue = Queue::new(
            vring.memory.clone(),
            vring.layout,
            vring.features,
            vring.next_avail,
        )?;
        Ok(Setup {
            index: vring.index,
            engine: self.engine,
            image: self.image.clone(),
            id: self.id,
            write_through: self.is_write_through(vring.features),
            queue,
            kick: vring.kick.clone(),
            call: vring.call.clone(),
            throttle: self.throttle.clone(),
            shared,
        })
    }
}

impl Device for BlockDevice {
    fn features(&self) -> u64 {
        // Not VIRTIO_BLK_F_SIZE_MAX: a segment may have any size, and SeaBIOS (1.16) hangs in a loop
        // of empty reads when size_max times seg_max is more than 65535 sectors.
        let mut features = RING_FEATURES
            | self.rings
            | 1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_BLK_F_SEG_MAX
            | 1 << VIRTIO_BLK_F_BLK_SIZE
            | 1 << VIRTIO_BLK_F_TOPOLOGY
            | 1 << VIRTIO_BLK_F_FLUSH;
        let limits = self.image.limits();
        for (offered, feature) in [
            (limits.read_only, VIRTIO_BLK_F_RO),
            (self.image.cache_can_change(), VIRTIO_BLK_F_CONFIG_WCE),
            (self.queues > 1, VIRTIO_BLK_F_MQ),
            (limits.discard, VIRTIO_BLK_F_DISCARD),
            (limits.write_zeroes, VIRTIO_BLK_F_WRITE_ZEROES),
            (limits.secure_erase, VIRTIO_BLK_F_SECURE_ERASE),
        ] {
            features |= u64::from(offered) << feature;
        }
        features
    }

    fn queue_count(&self) -> u16 {
        self.queues
    }

    fn max_queue_size(&self) -> u16 {
        self.queue_size
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        self.config().read(offset, data);
    }

    fn write_config(&self, offset: usize, data: &[u8]) -> Result<(), ConfigError> {
        match data {
            [writeback @ (0 | 1)] if offset == WRITEBACK.start && self.image.cache_can_change() => {
                self.image.set_writeback(*writeback == 1);
                Ok(())
            }
            _ => Err(ConfigError {
                offset,
                end: offset.saturating_add(data.len()),
            }),
        }
    }

    fn start(&self, vring: Vring) -> Result<Box<dyn RunningVring>, StartError> {
        if vring.index >= self.queues {
            return Err(StartError::NoSuchQueue(vring.index));
        }
        let system = |what| move |source| StartError::System { what, source };
        let wake = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)
            .map_err(system("cannot make an eventfd to stop a queue"))?;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            wake: Arc::new(wake),
            next_avail: AtomicU16::new(vring.next_avail),
        });
        let setup = self.setup(&vring, shared.clone())?;
        let error = vring.error;
        let thread = thread::Builder::new()
            .name(format!("vring-{}", vring.index))
            .spawn(move || run(setup, error.as_deref()))
            .map_err(system("cannot start a queue's thread"))?;
        Ok(Box::new(WorkerThread {
            shared,
            thread: Some(thread),
        }))
    }
}

fn padded_id(serial: String) -> Result<[u8; ID_LEN], DeviceError> {
    let mut id = [0; ID_LEN];
    match id.get_mut(..serial.len()) {
        Some(start) => start.copy_from_slice(serial.as_bytes()),
        None => return Err(DeviceError::Serial(serial)),
    }
    Ok(id)
}

/// A worker's whole life, on its thread. Whatever ends it early is told to the carrier.
fn run(setup: Setup, error: Option<&dyn Notifier>) {
    let index = setup.index;
    let report = |failure: &dyn std::fmt::Display| {
        tracing::warn!("queue {index} takes no more requests: {failure}");
        if let Some(Err(error)) = error.map(Notifier::notify) {
            tracing::warn!("queue {index}: cannot report that: {error}");
        }
    };
    let served = catch_unwind(AssertUnwindSafe(|| {
        let mut worker = Worker::new(setup);
        let served = worker.serve();
        if let Err(failure) = &served {
            report(failure);
        }
        // A ring that failed before may well fail again, which is no news.
        let finished = worker.finish();
        if let (Ok(()), Err(failure)) = (served, finished) {
            report(&failure);
        }
    }));
    if served.is_err() {
        report(&"internal error");
    }
}

/// A worker and the means to stop it.
struct WorkerThread {
    shared: Arc<Shared>,
    /// `None` once it was joined.
    thread: Option<JoinHandle<()>>,
}

impl WorkerThread {
    fn join(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Err(error) = self.wake() {
            // Cannot happen with an eventfd of our own, and waiting would be forever.
            tracing::error!("cannot wake a queue's thread: {error}");
            return;
        }
        // A panic was reported by the thread itself.
        let _ = thread.join();
    }

    fn wake(&self) -> io::Result<()> {
        self.shared.wake.notify()
    }
}

impl RunningVring for WorkerThread {
    fn stop(mut self: Box<Self>) -> u16 {
        self.join();
        self.shared.next_avail.load(Ordering::Relaxed)
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        self.join();
    }
}

#[cfg(test)]
mod tests;
