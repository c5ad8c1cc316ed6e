//! A driver of a virtio PCI function that uses it through a vfio-user client. It behaves well
//! unless an attack makes it do otherwise.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use anyhow::{Context, Result};
use ipc::SharedEventFd;
use vfio_user::{Client, DmaFlags, index};
use virtio::pci::{common, status};
use virtio::test_utils::DriverRing;

use super::front_end::RING;
use super::shared::{SIZE, Shared};
use super::{PATIENCE, disk};

/// The BAR with the registers of a function.
pub const BAR: u32 = 0;
/// The offset of the notification register of queue 0. That of queue N is 4 times N behind it.
pub const NOTIFY: u64 = 0x3000;

/// Access to memory for reading and writing.
pub const ACCESS: DmaFlags = DmaFlags::READ.union(DmaFlags::WRITE);

/// The features that the driver accepts: `VIRTIO_F_VERSION_1` and `VIRTIO_F_ACCESS_PLATFORM`, the
/// lowest of the upper 32 feature bits.
const FEATURES: u32 = 0b11;

/// A connected driver.
#[derive(Debug)]
pub struct Driver {
    /// The client.
    pub client: Client,
    /// The memory that the function has.
    pub shared: Shared,
}

impl Driver {
    /// Connects to a function, and shares memory with it.
    pub fn connect(socket: &Path) -> Result<Self> {
        let mut client = Client::connect(socket, PATIENCE)?;
        let shared = Shared::new()?;
        client.dma_map(0, SIZE, shared.file.as_fd(), 0, ACCESS)?;
        Ok(Self { client, shared })
    }

    /// Resets the device and starts the first queues. Interrupt N, which is that of queue N, is
    /// `calls[N]`. Returns the rings.
    pub fn start(&mut self, calls: &[BorrowedFd<'_>]) -> Result<Vec<DriverRing>> {
        let fds: Vec<_> = calls.iter().copied().map(Some).collect();
        self.client.set_irqs(index::MSIX, 0, &fds)?;
        self.begin()?;
        let rings = (0..calls.len() as u16).map(|queue| self.set_up(queue));
        let rings = rings.collect::<Result<_>>()?;
        self.status(status::DRIVER_OK)?;
        Ok(rings)
    }

    /// Resets the device.
    pub fn reset(&mut self) -> Result<()> {
        self.write(common::DEVICE_STATUS, &[0])
    }

    /// Resets the device and agrees on features.
    fn begin(&mut self) -> Result<()> {
        self.reset()?;
        self.write(
            common::DEVICE_STATUS,
            &[status::ACKNOWLEDGE | status::DRIVER],
        )?;
        self.write(common::DRIVER_FEATURE_SELECT, &1u32.to_le_bytes())?;
        self.write(common::DRIVER_FEATURE, &FEATURES.to_le_bytes())?;
        self.status(status::FEATURES_OK)
    }

    /// Adds a bit to the device status.
    fn status(&mut self, bit: u8) -> Result<()> {
        let mut byte = [0];
        self.client
            .region_read(BAR, common::DEVICE_STATUS, &mut byte)?;
        self.write(common::DEVICE_STATUS, &[byte[0] | bit])
    }

    fn set_up(&mut self, queue: u16) -> Result<DriverRing> {
        let ring = self.shared.ring(queue, RING)?;
        let layout = ring.layout();
        self.write(common::QUEUE_SELECT, &queue.to_le_bytes())?;
        self.write(common::QUEUE_SIZE, &layout.size.to_le_bytes())?;
        self.write(common::QUEUE_DESC, &layout.desc.0.to_le_bytes())?;
        self.write(common::QUEUE_DRIVER, &layout.avail.0.to_le_bytes())?;
        self.write(common::QUEUE_DEVICE, &layout.used.0.to_le_bytes())?;
        self.write(common::QUEUE_MSIX_VECTOR, &queue.to_le_bytes())?;
        self.write(common::QUEUE_ENABLE, &1u16.to_le_bytes())?;
        Ok(ring)
    }

    /// Tells the device that queue `queue` has new requests.
    pub fn notify(&mut self, queue: u16) -> Result<()> {
        self.write(NOTIFY + 4 * u64::from(queue), &queue.to_le_bytes())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        Ok(self.client.region_write(BAR, offset, data)?)
    }
}

/// Uses a disk as a well-behaved driver does.
pub fn check(socket: &Path) -> Result<()> {
    let call = SharedEventFd::new()?;
    let mut driver = Driver::connect(socket).context("a well-behaved client")?;
    let rings = driver.start(&[call.as_fd()])?;
    let mut ring = rings.into_iter().next().context("no ring")?;
    let shared = driver.shared.clone();
    let kick = || driver.notify(0);
    disk::check(&shared, &mut ring, kick, call.as_fd())
}
