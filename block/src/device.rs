//! The virtio block device: its options, features and configuration space.

use std::io;
use std::sync::Arc;

use virtio::{ConfigError, Device, DeviceKind, ServeError, ServedQueue, Wake};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SECURE_ERASE, VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

use crate::Image;
use crate::cache::WriteCache;
use crate::config::{Config, WRITEBACK};
use crate::disk::Disk;
use crate::engine::{EngineKind, RingSlot};
use crate::limit::{Clock, RateLimits, Throttle};
use crate::request::ID_LEN;
use crate::worker::Worker;

/// The maximum number of request queues of a device.
pub const MAX_QUEUES: u16 = 256;

/// The largest valid value of [`Options::segments`].
pub const MAX_SEGMENTS: u16 = 254;

/// PCI class "mass storage controller, SCSI". QEMU gives its virtio disks the same class.
const PCI_CLASS: u32 = 0x01_0000;

/// The options of a block device.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of request queues, 1 to [`MAX_QUEUES`].
    pub queues: u16,
    /// Maximum number of data segments in a request, 1 to [`MAX_SEGMENTS`] (VIRTIO_BLK_F_SEG_MAX).
    /// Choose at most the queue size minus 2, because a chain also has a descriptor for the header
    /// and a descriptor for the status, and a chain without indirect descriptors has to fit in the
    /// vring.
    pub segments: u16,
    /// The serial number that the driver sees, [`ID_LEN`] bytes at most.
    pub serial: String,
}

impl Default for Options {
    /// One queue, 126 segments (for a vring of 128 descriptors), and an empty serial number.
    fn default() -> Self {
        Self {
            queues: 1,
            segments: 126,
            serial: String::new(),
        }
    }
}

/// The reason why a device cannot have the given [`Options`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The number of queues is 0 or more than [`MAX_QUEUES`].
    #[error("a device cannot have {0} queues; it can have 1 to {MAX_QUEUES}")]
    Queues(u16),
    /// The number of segments is 0 or more than [`MAX_SEGMENTS`].
    #[error("a request cannot have {0} segments; it can have 1 to {MAX_SEGMENTS}")]
    Segments(u16),
    /// The serial number is longer than [`ID_LEN`] bytes.
    #[error("serial number \"{0}\" is longer than {ID_LEN} bytes")]
    Serial(String),
}

/// A virtio block device (virtio 1.2, section 5.2) that serves one image.
///
/// # Examples
///
/// A carrier (transport, for example vhost-user) connects a device to drivers. The carrier takes
/// the device in a [`virtio::Runner`]:
///
/// ```
/// use std::sync::Arc;
///
/// use block::{BlockDevice, Image, OpenOptions, Options};
/// use virtio::{Device, RingOptions, Runner};
///
/// let file = tempfile::NamedTempFile::new()?;
/// file.as_file().set_len(1 << 20)?;
/// let image = Arc::new(Image::open(file.path(), OpenOptions::default())?);
/// assert_eq!(image.sectors(), 2048);
///
/// let options = Options {
///     queues: 4,
///     serial: "disk-1".to_owned(),
///     ..Options::default()
/// };
/// let runner = Runner::new(Arc::new(BlockDevice::new(image, options)?), RingOptions::default());
/// // Before a jail closes. It makes an io_uring for each queue, or logs why there is none.
/// runner.prepare()?;
///
/// // What a driver reads first: the capacity in sectors.
/// let mut capacity = [0; 8];
/// runner.device().read_config(0, &mut capacity);
/// assert_eq!(u64::from_le_bytes(capacity), 2048);
/// assert_eq!(runner.queue_count(), 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct BlockDevice {
    pub(crate) disk: Disk,
    segments: u16,
    engine: EngineKind,
    /// The recommended maximum number of bytes in a discard, write-zeroes or secure-erase request.
    /// Larger requests are carried out, too.
    largest_change: u64,
    /// One io_uring for each queue.
    pub(crate) rings: Box<[RingSlot]>,
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
        if !(1..=MAX_SEGMENTS).contains(&options.segments) {
            return Err(DeviceError::Segments(options.segments));
        }
        Ok(Self {
            disk: Disk {
                cache: WriteCache::of(&image),
                image,
                id: padded_id(options.serial)?,
                throttle: None,
            },
            segments: options.segments,
            engine: EngineKind::Auto,
            largest_change: u64::MAX,
            rings: (0..options.queues).map(|_| RingSlot::default()).collect(),
        })
    }

    /// Sets the kind of the I/O engine, which makes the system calls for the image. The default is
    /// [`EngineKind::Auto`].
    #[must_use]
    pub fn with_engine(mut self, engine: EngineKind) -> Self {
        self.engine = engine;
        self
    }

    /// Sets limits on the speed of the disk. If written bytes are limited, the configuration space
    /// asks drivers to discard, zero or erase at most as many bytes per request as may be written
    /// in a second. Otherwise a single such request could delay all others for minutes.
    #[must_use]
    pub fn with_limits(mut self, limits: RateLimits) -> Self {
        self.largest_change = limits.written_per_second().unwrap_or(u64::MAX);
        self.disk.throttle = limits
            .any()
            .then(|| Arc::new(Throttle::new(limits, Clock::start())));
        self
    }

    fn config(&self) -> Config {
        let config = Config {
            seg_max: self.segments.into(),
            num_queues: self.queue_count(),
            writeback: self.disk.cache.is_writeback(),
            ..Config::of_image(&self.disk.image)
        };
        config.with_largest_change(self.largest_change)
    }
}

impl Device for BlockDevice {
    fn kind(&self) -> DeviceKind {
        DeviceKind {
            id: VIRTIO_ID_BLOCK as u16,
            class: PCI_CLASS,
        }
    }

    fn features(&self) -> u64 {
        // VIRTIO_BLK_F_SIZE_MAX is not offered, because a segment may have any size. With this
        // feature, SeaBIOS 1.16 repeats reads of 0 sectors forever if size_max times seg_max is
        // more than 65535 sectors.
        let mut features = 1 << VIRTIO_BLK_F_SEG_MAX
            | 1 << VIRTIO_BLK_F_BLK_SIZE
            | 1 << VIRTIO_BLK_F_TOPOLOGY
            | 1 << VIRTIO_BLK_F_FLUSH;
        let limits = self.disk.image.limits();
        for (offered, feature) in [
            (limits.read_only, VIRTIO_BLK_F_RO),
            (self.disk.cache.can_change(), VIRTIO_BLK_F_CONFIG_WCE),
            (self.queue_count() > 1, VIRTIO_BLK_F_MQ),
            (limits.discard, VIRTIO_BLK_F_DISCARD),
            (limits.write_zeroes, VIRTIO_BLK_F_WRITE_ZEROES),
            (limits.secure_erase, VIRTIO_BLK_F_SECURE_ERASE),
        ] {
            features |= u64::from(offered) << feature;
        }
        features
    }

    fn queue_count(&self) -> u16 {
        // The number of queues fits in 16 bits, because `new` allows at most MAX_QUEUES.
        self.rings.len() as u16
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        self.config().read(offset, data);
    }

    fn write_config(&self, offset: usize, data: &[u8]) -> Result<(), ConfigError> {
        match data {
            [mode @ (0 | 1)] if offset == WRITEBACK.start && self.disk.cache.can_change() => {
                self.disk.cache.set_writeback(*mode == 1, &self.disk.image);
                Ok(())
            }
            _ => Err(ConfigError::new(offset, data)),
        }
    }

    /// Makes an io_uring for each queue. If the kernel refuses to make an io_uring, the queue's
    /// requests are carried out by threads.
    fn prepare(&self) -> io::Result<()> {
        if !self.engine.uses_rings(&self.disk.image) {
            return Ok(());
        }
        // Tries to make an io_uring for every queue, even after a failure. A later attempt is not
        // possible, because the jail's system call filter forbids new io_urings.
        let made = self.rings.iter().map(RingSlot::prepare);
        let refused: Vec<_> = made.filter_map(Result::err).collect();
        if let [error, ..] = &refused[..] {
            let (count, hint) = (refused.len(), hint(error));
            tracing::warn!("threads serve {count} queues, which get no io_uring: {error}{hint}");
        }
        Ok(())
    }

    fn serve(&self, queue: &mut ServedQueue, wake: &Wake) -> Result<(), ServeError> {
        let mut ring = self.rings[usize::from(queue.index)].lock();
        let mut worker = Worker::new(&self.disk, self.engine, &mut ring, queue, wake);
        let served = worker.serve();
        // If `serve` and `finish` both fail, only the error of `serve` is reported, because it is
        // the cause of the error of `finish`.
        let finished = worker.finish();
        served.and(finished)
    }
}

/// Names the setting to change if the kernel refuses to make an io_uring. Empty if no such setting
/// is known.
fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => " (see the sysctl kernel.io_uring_disabled)",
        Some(libc::ENOMEM) => " (see the limit on locked memory, RLIMIT_MEMLOCK)",
        _ => "",
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

#[cfg(test)]
mod tests;
