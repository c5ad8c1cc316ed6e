//! A driver that uses a function through a vfio-user client.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vfio_user::Client;
use virtio::test_utils::{DriverRing, anonymous_file};
use virtio::{GuestMemory, Region};
use vm_memory::{Bytes, GuestAddress};

use super::*;

/// Length in bytes of the client's memory, which begins at address 0.
pub(super) const SIZE: u64 = 0x10_0000;
/// Address of the rings of all queues. The rings of each queue have a separate page.
pub(super) const RINGS: u64 = 0x4000;
/// Address of the buffer of a request.
pub(super) const BUFFERS: u64 = 0x8000;
/// The byte that the device writes into a request's buffer.
pub(super) const MARK: u8 = 0xaa;
/// The vector for configuration changes. The queues have the vectors 0 and 1.
pub(super) const CONFIG: u16 = 2;

const TIMEOUT: Duration = Duration::from_secs(20);
const NOTIFY: u64 = 0x3000;
const ACCESS: DmaFlags = DmaFlags::READ.union(DmaFlags::WRITE);

/// Waits until a file descriptor is readable.
pub(super) fn wait(fd: impl AsFd) {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let limit = Timespec::try_from(TIMEOUT).unwrap();
    assert!(poll(&mut fds, Some(&limit)).unwrap() > 0, "deadline");
}

pub(super) struct Driver {
    pub(super) client: Client,
    pub(super) rings: Vec<DriverRing>,
    irqs: Vec<OwnedFd>,
    file: Arc<File>,
    memory: Arc<GuestMemory>,
}

impl Driver {
    pub(super) fn connect(path: &Path) -> Self {
        let mut client = Client::connect(path, TIMEOUT).unwrap();
        let file = anonymous_file(SIZE);
        client.dma_map(0, SIZE, file.as_fd(), 0, ACCESS).unwrap();
        let region = Region::map(file.clone(), 0, GuestAddress(0), SIZE, true).unwrap();
        let memory = Arc::new(GuestMemory::from_regions(vec![region]).unwrap());
        let event = |_| eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let irqs: Vec<_> = (0..3).map(event).collect();
        let fds: Vec<_> = irqs.iter().map(|irq| Some(irq.as_fd())).collect();
        client.set_irqs(index::MSIX, 0, &fds).unwrap();
        Self {
            client,
            rings: Vec::new(),
            irqs,
            file,
            memory,
        }
    }

    /// Brings the device up, and takes the interrupt that each queue raises when it starts.
    pub(super) fn start(&mut self) {
        self.bring_up();
        self.take_irq(0);
        self.take_irq(1);
    }

    /// Resets the device and brings it up to DRIVER_OK, with empty rings.
    pub(super) fn bring_up(&mut self) {
        self.reset();
        self.write(common::DEVICE_STATUS, &[3]);
        self.write(common::DRIVER_FEATURE_SELECT, &1u32.to_le_bytes());
        self.write(common::DRIVER_FEATURE, &3u32.to_le_bytes());
        self.write(common::DEVICE_STATUS, &[0xb]);
        assert_eq!(self.status(), 0xb);
        self.write(common::CONFIG_MSIX_VECTOR, &CONFIG.to_le_bytes());
        self.rings.clear();
        for queue in 0..2u16 {
            self.set_up(queue, RINGS + 0x1000 * u64::from(queue));
        }
        self.write(common::DEVICE_STATUS, &[0xf]);
    }

    fn set_up(&mut self, queue: u16, base: u64) {
        let empty = [0; 0x1000];
        self.memory.write_slice(&empty, GuestAddress(base)).unwrap();
        let ring = DriverRing::new(self.memory.clone(), base, 16);
        let layout = ring.layout();
        self.write(common::QUEUE_SELECT, &queue.to_le_bytes());
        self.write(common::QUEUE_SIZE, &layout.size.to_le_bytes());
        self.write(common::QUEUE_DESC, &layout.desc.0.to_le_bytes());
        self.write(common::QUEUE_DRIVER, &layout.avail.0.to_le_bytes());
        self.write(common::QUEUE_DEVICE, &layout.used.0.to_le_bytes());
        self.write(common::QUEUE_MSIX_VECTOR, &queue.to_le_bytes());
        self.write(common::QUEUE_ENABLE, &1u16.to_le_bytes());
        self.rings.push(ring);
    }

    /// Writes a number into the memory that the device accesses.
    pub(super) fn scribble(&self, address: u64, value: u16) {
        self.memory.write_obj(value, GuestAddress(address)).unwrap();
    }

    /// Adds a request whose buffer is at `address`.
    pub(super) fn add(&mut self, queue: usize, address: u64) {
        self.memory.write_obj(0u8, GuestAddress(BUFFERS)).unwrap();
        self.rings[queue].add(&[(address, 16, true)]);
    }

    pub(super) fn request(&mut self, queue: usize, address: u64) {
        self.add(queue, address);
        self.notify(queue);
    }

    pub(super) fn notify(&mut self, queue: usize) {
        self.write(NOTIFY + 4 * queue as u64, &(queue as u16).to_le_bytes());
    }

    /// Waits until the device has used a request, and checks that the device has written [`MARK`]
    /// to `address`. If the queue was started again meanwhile, its start has raised an interrupt,
    /// too.
    pub(super) fn finish(&mut self, queue: usize, address: u64) {
        self.take_irq(queue as u16);
        while self.rings[queue].pop_used().is_none() {
            self.take_irq(queue as u16);
        }
        let mark: u8 = self.memory.read_obj(GuestAddress(address)).unwrap();
        assert_eq!(mark, MARK);
    }

    pub(super) fn take_irq(&self, vector: u16) {
        let irq = &self.irqs[usize::from(vector)];
        wait(irq);
        rustix::io::read(irq, &mut [0; 8]).unwrap();
    }

    pub(super) fn irq(&self, vector: u16) -> BorrowedFd<'_> {
        self.irqs[usize::from(vector)].as_fd()
    }

    /// Maps a part of the memory's file at an additional address.
    pub(super) fn map(&mut self, address: u64, offset: u64, size: u64) {
        let file = self.file.as_fd();
        self.client
            .dma_map(address, size, file, offset, ACCESS)
            .unwrap();
    }

    /// Truncates the file of the memory. Afterwards the driver must not access its memory.
    pub(super) fn truncate(&self) {
        self.file.set_len(0).unwrap();
    }

    /// Maps a page of another file at `address`.
    pub(super) fn map_other(&mut self, address: u64) -> Arc<File> {
        let file = anonymous_file(0x1000);
        let fd = file.as_fd();
        self.client.dma_map(address, 0x1000, fd, 0, ACCESS).unwrap();
        file
    }

    /// Resets the function as a kernel does, through the capability for function-level reset.
    pub(super) fn function_level_reset(&mut self) {
        let mut config = [0; 256];
        self.client
            .region_read(index::CONFIG, 0, &mut config)
            .unwrap();
        let mut at = usize::from(config[0x34]);
        while config[at] != 0x13 {
            at = usize::from(config[at + 1]);
        }
        let control = at as u64 + 4;
        self.client
            .region_write(index::CONFIG, control, &[1])
            .unwrap();
    }

    pub(super) fn reset(&mut self) {
        self.write(common::DEVICE_STATUS, &[0]);
        assert_eq!(self.status(), 0);
    }

    pub(super) fn status(&mut self) -> u8 {
        self.byte(common::DEVICE_STATUS)
    }

    pub(super) fn isr(&mut self) -> u8 {
        self.byte(0x1000)
    }

    fn byte(&mut self, offset: u64) -> u8 {
        let mut byte = [0];
        self.read(offset, &mut byte);
        byte[0]
    }

    pub(super) fn offered(&mut self) -> u64 {
        let mut halves = [[0; 4]; 2];
        for (select, half) in (0u32..).zip(&mut halves) {
            self.write(common::DEVICE_FEATURE_SELECT, &select.to_le_bytes());
            self.read(common::DEVICE_FEATURE, half);
        }
        let [low, high] = halves.map(u32::from_le_bytes);
        u64::from(high) << 32 | u64::from(low)
    }

    pub(super) fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.client.region_read(0, offset, data).unwrap();
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        self.client.region_write(0, offset, data).unwrap();
    }
}
