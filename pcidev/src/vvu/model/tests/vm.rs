//! The driver in the device VM. The tests control each step of the driver, which uses the device
//! through a vfio-user client.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use vfio_user::{Client, DmaFlags, index};
use vhost_user::Message;
use virtio::pci::common;
use virtio::test_utils::{DriverRing, anonymous_file};
use virtio::{GuestMemory, Region};
use vm_memory::{Bytes, GuestAddress};
use vvu_abi as abi;

pub(super) const TIMEOUT: Duration = Duration::from_secs(20);
/// The vector for configuration changes. The two virtqueues have the vectors 1 and 2.
pub(super) const CONFIG_VECTOR: u16 = 0;
pub(super) const VECTORS: u16 = 19;

const IOVA: u64 = 0x10_0000;
const SIZE: u64 = 0x10_0000;
const RX_RING: u64 = IOVA;
const TX_RING: u64 = IOVA + 0x4000;
const BUFFERS: u64 = IOVA + 0x1_0000;
const QUEUE_SIZE: u16 = 16;
const FEATURES: u64 = 1 << 32 | 1 << 33;

/// Waits until a file descriptor is readable.
pub(super) fn wait(fd: impl AsFd) {
    assert!(is_readable(fd, TIMEOUT), "deadline");
}

pub(super) fn is_readable(fd: impl AsFd, limit: Duration) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let limit = Timespec::try_from(limit).unwrap();
    poll(&mut fds, Some(&limit)).unwrap() > 0
}

/// Waits until an eventfd is signalled, and then resets the eventfd's counter.
pub(super) fn take(fd: &OwnedFd) {
    wait(fd);
    rustix::io::read(fd, &mut [0; 8]).unwrap();
}

/// The device VM, whose driver uses the device.
pub(super) struct Vm {
    pub(super) client: Client,
    pub(super) irqs: Vec<OwnedFd>,
    pub(super) rx: DriverRing,
    pub(super) tx: DriverRing,
    file: Arc<File>,
    memory: Arc<GuestMemory>,
    /// The addresses and lengths of the rx buffers. The key is the head of the buffers' chain.
    posted: HashMap<u32, Vec<(u64, u32)>>,
    next_buffer: u64,
}

impl Vm {
    /// Connects to the device, but does not access the device's registers yet.
    pub(super) fn connect(path: &Path) -> Self {
        let mut client = Client::connect(path, TIMEOUT).unwrap();
        let file = anonymous_file(SIZE);
        let access = DmaFlags::READ | DmaFlags::WRITE;
        client.dma_map(IOVA, SIZE, file.as_fd(), 0, access).unwrap();
        let region = Region::map(file.clone(), 0, GuestAddress(IOVA), SIZE, true).unwrap();
        let memory = Arc::new(GuestMemory::from_regions(vec![region]).unwrap());
        let irqs: Vec<_> = (0..VECTORS)
            .map(|_| eventfd(0, EventfdFlags::CLOEXEC).unwrap())
            .collect();
        let fds: Vec<_> = irqs.iter().map(|irq| Some(irq.as_fd())).collect();
        client.set_irqs(index::MSIX, 0, &fds).unwrap();
        Self {
            rx: DriverRing::new(memory.clone(), RX_RING, QUEUE_SIZE),
            tx: DriverRing::new(memory.clone(), TX_RING, QUEUE_SIZE),
            client,
            irqs,
            file,
            memory,
            posted: HashMap::new(),
            next_buffer: BUFFERS,
        }
    }

    /// Resets the device and brings it up to DRIVER_OK, without rx buffers.
    pub(super) fn start(&mut self) {
        self.reset();
        self.write(0, common::DEVICE_STATUS, &[3]);
        for half in 0..2u32 {
            let features = (FEATURES >> (32 * half)) as u32;
            self.write(0, common::DRIVER_FEATURE_SELECT, &half.to_le_bytes());
            self.write(0, common::DRIVER_FEATURE, &features.to_le_bytes());
        }
        self.write(0, common::DEVICE_STATUS, &[0xb]);
        assert_eq!(self.status(), 0xb);
        self.write(0, common::CONFIG_MSIX_VECTOR, &CONFIG_VECTOR.to_le_bytes());
        for (queue, base) in [(abi::queue::RX, RX_RING), (abi::queue::TX, TX_RING)] {
            let ring = DriverRing::new(self.memory.clone(), base, QUEUE_SIZE);
            let layout = ring.layout();
            self.memory
                .write_slice(&[0; 0x4000], GuestAddress(base))
                .unwrap();
            self.write(0, common::QUEUE_SELECT, &queue.to_le_bytes());
            self.write(0, common::QUEUE_SIZE, &QUEUE_SIZE.to_le_bytes());
            self.write(0, common::QUEUE_DESC, &layout.desc.0.to_le_bytes());
            self.write(0, common::QUEUE_DRIVER, &layout.avail.0.to_le_bytes());
            self.write(0, common::QUEUE_DEVICE, &layout.used.0.to_le_bytes());
            self.write(0, common::QUEUE_MSIX_VECTOR, &(queue + 1).to_le_bytes());
            self.write(0, common::QUEUE_ENABLE, &1u16.to_le_bytes());
            match queue {
                abi::queue::RX => self.rx = ring,
                _ => self.tx = ring,
            }
        }
        self.posted.clear();
        self.write(0, common::DEVICE_STATUS, &[0xf]);
    }

    /// Starts the device as [`Vm::start`] does, adds rx buffers, and tells the device that the
    /// driver is ready for a front-end.
    pub(super) fn start_up(&mut self) {
        self.start();
        self.post(8);
        self.set_up(1);
    }

    pub(super) fn reset(&mut self) {
        self.write(0, common::DEVICE_STATUS, &[0]);
        assert_eq!(self.status(), 0);
    }

    pub(super) fn write(&mut self, bar: u32, offset: u64, data: &[u8]) {
        self.client.region_write(bar, offset, data).unwrap();
    }

    pub(super) fn read<const N: usize>(&mut self, bar: u32, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        self.client.region_read(bar, offset, &mut data).unwrap();
        data
    }

    /// The device status register.
    pub(super) fn status(&mut self) -> u8 {
        let [status] = self.read(0, common::DEVICE_STATUS);
        status
    }

    /// The status field of the device configuration.
    pub(super) fn link(&mut self) -> u32 {
        u32::from_le_bytes(self.read(0, 0x2000))
    }

    pub(super) fn set_up(&mut self, status: u32) {
        self.write(0, 0x2000, &status.to_le_bytes());
    }

    /// Waits for a configuration interrupt and returns the status field of the device
    /// configuration.
    pub(super) fn config_changed(&mut self) -> u32 {
        take(&self.irqs[usize::from(CONFIG_VECTOR)]);
        self.link()
    }

    /// Makes the kicks of a vhost queue raise `vector`.
    pub(super) fn set_notification(&mut self, queue: u16, vector: u16) {
        self.write(2, 0x2000, &queue.to_le_bytes());
        self.write(2, 0x2002, &vector.to_le_bytes());
        assert_eq!(self.read::<2>(2, 0x2002), vector.to_le_bytes());
    }

    /// Adds `count` rx buffers of 512 bytes, each in one descriptor.
    pub(super) fn post(&mut self, count: usize) {
        for _ in 0..count {
            self.post_chain(&[512]);
        }
    }

    /// Adds one rx chain whose buffers have the given lengths, and sends a kick.
    pub(super) fn post_chain(&mut self, lengths: &[u32]) {
        let parts: Vec<_> = lengths
            .iter()
            .map(|len| (self.buffer(*len), *len))
            .collect();
        let chain: Vec<_> = parts.iter().map(|&(at, len)| (at, len, true)).collect();
        let head = self.rx.add(&chain);
        self.posted.insert(head.into(), parts);
        self.write(0, 0x3000, &[0, 0]);
    }

    fn buffer(&mut self, len: u32) -> u64 {
        let at = self.next_buffer;
        self.next_buffer += u64::from(len);
        if self.next_buffer > IOVA + SIZE - 0x1000 {
            self.next_buffer = BUFFERS;
        }
        at
    }

    /// The next message that the device has delivered. `None` means that there is no message yet.
    pub(super) fn try_recv(&mut self) -> Option<Message> {
        let (head, len) = self.rx.pop_used()?;
        let parts = self.posted.remove(&head).unwrap();
        let mut bytes = Vec::new();
        for (at, size) in parts {
            let mut part = vec![0; size as usize];
            self.memory.read_slice(&mut part, GuestAddress(at)).unwrap();
            bytes.extend(part);
        }
        Some(Message::decode(&bytes[..len as usize]).unwrap())
    }

    /// Waits for the next message.
    pub(super) fn recv(&mut self) -> Message {
        loop {
            if let Some(message) = self.try_recv() {
                return message;
            }
            take(&self.irqs[1]);
        }
    }

    /// Sends a message in a chain of buffers. The first buffers have the given lengths, and the
    /// last buffer has the remaining bytes of the message.
    pub(super) fn send_cut(&mut self, bytes: &[u8], lengths: &[usize]) {
        let mut chain = Vec::new();
        let mut rest = bytes;
        for len in lengths.iter().copied().chain([usize::MAX]) {
            let (part, tail) = rest.split_at(len.min(rest.len()));
            let at = self.buffer(part.len() as u32);
            self.memory.write_slice(part, GuestAddress(at)).unwrap();
            chain.push((at, part.len() as u32, false));
            rest = tail;
        }
        self.tx.add(&chain);
        self.write(0, 0x3004, &[1, 0]);
    }

    /// Sends a message and checks that the device has used it.
    pub(super) fn send(&mut self, message: &Message) {
        self.send_cut(&message.encode(), &[]);
        assert!(self.tx.pop_used().is_some());
    }

    /// Unmaps the memory and maps it again in single pages, as a vIOMMU does.
    pub(super) fn remap(&mut self) {
        let file = self.file.clone();
        self.client.dma_unmap(IOVA, SIZE).unwrap();
        let access = DmaFlags::READ | DmaFlags::WRITE;
        for page in (0..SIZE).step_by(0x1000) {
            let fd = file.as_fd();
            self.client
                .dma_map(IOVA + page, 0x1000, fd, page, access)
                .unwrap();
        }
    }

    /// Truncates the file of the memory. Afterwards the driver must not access its memory.
    pub(super) fn truncate(&self) {
        self.file.set_len(0).unwrap();
    }

    /// Unmaps all memory, so that the device has no access to it.
    pub(super) fn unmap(&mut self) {
        self.client.dma_unmap(IOVA, SIZE).unwrap();
    }
}
