//! A test front-end that uses a disk of `vvu-block` over vhost-user.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use ipc::{Interest, SharedEventFd, poll};
use vhost_user::{
    F_PROTOCOL_FEATURES, FrontEnd, MemoryRegion, MemoryTable, ProtocolFeatures, Request, VringAddr,
    VringSetup,
};
use virtio::queue::{IN_ORDER, PACKED};
use virtio::test_utils::{AnyDriverRing, anonymous_file};
use virtio::{GuestMemory, Region};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use vm_memory::{Bytes, GuestAddress};

use super::harness::PATIENCE;

pub const SIZE: u64 = 0x10000;
const RING: u64 = 0x1000;
const HEADER: u64 = 0x4000;
const DATA: u64 = 0x5000;
const STATUS: u64 = 0x6000;
const LAST_PAGE: u64 = 0xf000;

/// The front-end of a disk. It makes one request at a time. In the memory table, each user address
/// is equal to the guest-physical address.
pub struct Disk {
    front: FrontEnd,
    queue: u32,
    file: Arc<File>,
    memory: Arc<GuestMemory>,
    ring: AnyDriverRing,
    kick: Arc<SharedEventFd>,
    call: SharedEventFd,
}

impl Disk {
    pub fn new(stream: UnixStream) -> Self {
        Self::with_rings(stream, 0)
    }

    /// Connects to the back-end over `stream` and starts a vring. EVENT_IDX, PACKED and IN_ORDER
    /// are negotiated only if `rings` has them.
    pub fn with_rings(stream: UnixStream, rings: u64) -> Self {
        Self::in_file(stream, rings, anonymous_file(SIZE))
    }

    /// As [`Disk::with_rings`], with the memory in the first [`SIZE`] bytes of this file.
    pub fn in_file(stream: UnixStream, rings: u64, file: Arc<File>) -> Self {
        let mut front = FrontEnd::new(stream, PATIENCE).unwrap();
        // Without EVENT_IDX, the back-end signals the call eventfd for each request.
        let features = !((1 << VIRTIO_RING_F_EVENT_IDX) | PACKED | IN_ORDER) | rings;
        let agreed = front.negotiate(features, ProtocolFeatures::all()).unwrap();
        assert_eq!(agreed & rings, rings);
        assert_ne!(agreed & F_PROTOCOL_FEATURES, 0);

        let region = MemoryRegion {
            guest_addr: 0,
            size: SIZE,
            user_addr: 0,
            file_offset: 0,
            memory: file.as_fd(),
        };
        let table = MemoryTable::new(vec![region]).unwrap();
        front.request(Request::SetMemTable(table)).unwrap();
        let region = Region::map(file.clone(), 0, GuestAddress(0), SIZE, true).unwrap();
        let memory = Arc::new(GuestMemory::from_regions(vec![region]).unwrap());
        let ring = AnyDriverRing::new(rings & PACKED != 0, memory.clone(), RING, 16);
        let mut disk = Self {
            front,
            queue: 0,
            file,
            memory,
            ring,
            kick: Arc::new(SharedEventFd::new().unwrap()),
            call: SharedEventFd::new().unwrap(),
        };
        disk.start(disk.ring.position());
        disk
    }

    /// Truncates the memory, kicks, and waits until the program has dropped this front-end.
    pub fn truncate_memory(mut self) {
        self.file.set_len(0).unwrap();
        self.kick.signal().unwrap();
        let gone = [Interest::readable(&self.front)];
        assert_eq!(poll(gone, Some(PATIENCE)).unwrap(), [true]);
        assert!(self.front.get_config(0, 8).is_err());
    }

    fn start(&mut self, base: u16) {
        let layout = self.ring.layout();
        let addr = VringAddr {
            index: self.queue,
            desc: layout.desc.0,
            avail: layout.avail.0,
            used: layout.used.0,
            ..VringAddr::default()
        };
        let vring = VringSetup {
            size: layout.size.into(),
            base: base.into(),
            addr,
            kick: Some(self.kick.as_fd()),
            call: Some(self.call.as_fd()),
        };
        self.front.start_vring(&vring).unwrap();
    }

    /// Stops the vring, and starts it again at the same position.
    pub fn stop_and_start(&mut self) {
        self.move_to(self.queue);
    }

    /// Stops the vring, and starts it at the same position with another eventfd for kicks.
    pub fn replace_kick(&mut self, kick: Arc<SharedEventFd>) {
        self.kick = kick;
        self.stop_and_start();
    }

    /// Stops the vring. Starts the queue with the index `queue` at the position where the vring
    /// stopped.
    pub fn move_to(&mut self, queue: u32) {
        let base = self.front.get_vring_base(self.queue).unwrap();
        assert_eq!(base as u16, self.ring.position());
        self.queue = queue;
        self.start(base as u16);
    }

    /// Stops the vring, starts it again where it stopped, and returns this position. The vring may
    /// stop before the program has taken all requests.
    pub fn stop_and_start_anywhere(&mut self) -> u16 {
        let base = self.front.get_vring_base(self.queue).unwrap() as u16;
        self.start(base);
        base
    }

    /// Waits for a call, and takes it.
    pub fn wait_for_call(&self) {
        let [called] = poll([Interest::readable(&self.call)], Some(PATIENCE)).unwrap();
        assert!(called, "no call");
        self.call.take().unwrap();
    }

    /// Kicks without adding a request.
    pub fn kick(&self) {
        self.kick.signal().unwrap();
    }

    /// The capacity of the disk in sectors of 512 bytes.
    pub fn capacity(&mut self) -> u64 {
        let capacity = self.front.get_config(0, 8).unwrap();
        u64::from_le_bytes(capacity.try_into().unwrap())
    }

    /// Makes one request, waits for it, and returns its status byte.
    pub fn request(&mut self, kind: u32, sector: u64, data: Option<(u32, bool)>) -> u8 {
        self.begin(kind, sector, data);
        self.finish()
    }

    /// As [`Disk::request`], with 512 bytes of data in memory whose page of the file is missing.
    pub fn request_in_missing_page(&mut self, kind: u32, is_written: bool) -> u8 {
        self.file.set_len(LAST_PAGE).unwrap();
        self.begin_at(kind, 0, Some((LAST_PAGE, 512, is_written)));
        self.finish()
    }

    /// Waits for the request, and returns its status byte.
    fn finish(&mut self) -> u8 {
        while self.ring.pop_used().is_none() {
            self.wait_for_call();
        }
        self.memory.read_obj(GuestAddress(STATUS)).unwrap()
    }

    /// Whether a request that began before has ended.
    pub fn has_answer(&mut self) -> bool {
        self.ring.pop_used().is_some()
    }

    /// Makes one request, and does not wait for it.
    pub fn begin(&mut self, kind: u32, sector: u64, data: Option<(u32, bool)>) {
        let data = data.map(|(len, is_written)| (DATA, len, is_written));
        self.begin_at(kind, sector, data);
    }

    fn begin_at(&mut self, kind: u32, sector: u64, data: Option<(u64, u32, bool)>) {
        let header = [kind.to_le_bytes(), [0; 4]].concat();
        let memory = &self.memory;
        memory.write_slice(&header, GuestAddress(HEADER)).unwrap();
        memory.write_obj(sector, GuestAddress(HEADER + 8)).unwrap();
        memory.write_obj(0xffu8, GuestAddress(STATUS)).unwrap();
        let mut buffers = vec![(HEADER, 16, false)];
        buffers.extend(data);
        buffers.push((STATUS, 1, true));
        self.ring.add(&buffers);
        self.kick.signal().unwrap();
    }

    /// Fills a sector with a byte, and returns the status byte of the write request.
    pub fn write(&mut self, sector: u64, byte: u8) -> u8 {
        let data = [byte; 512];
        self.memory.write_slice(&data, GuestAddress(DATA)).unwrap();
        self.request(1, sector, Some((512, false)))
    }

    /// Makes a discard (11) or write-zeroes (13) request for a range of sectors, and returns its
    /// status byte.
    pub fn change_range(&mut self, kind: u32, sector: u64, count: u32) -> u8 {
        let range = [&sector.to_le_bytes()[..], &count.to_le_bytes(), &[0; 4]].concat();
        self.memory.write_slice(&range, GuestAddress(DATA)).unwrap();
        self.request(kind, 0, Some((range.len() as u32, false)))
    }

    /// The first `N` bytes that the most recent read request returned.
    pub fn data<const N: usize>(&self) -> [u8; N] {
        let mut data = [0; N];
        self.memory
            .read_slice(&mut data, GuestAddress(DATA))
            .unwrap();
        data
    }
}
