//! A virtio driver for tests of the device. It can divide a request into buffers of any lengths.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::{Interest, SharedEventFd, poll};
use tempfile::TempDir;
use virtio::queue::PACKED;
use virtio::test_utils::{AnyDriverRing, memory};
use virtio::vring::first_position;
use virtio::{GuestMemory, RingOptions, Runner, Vring};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use vm_memory::{Bytes, GuestAddress};

use crate::device::{BlockDevice, Options};
use crate::engine::EngineKind;
use crate::operation::SECTOR_SIZE;
use crate::{Cache, Image, ImageError, OpenOptions};

pub const RING_SIZE: u16 = 64;
pub const SECTORS: u64 = 256;
/// The value of a writable byte before the device writes to it.
pub const UNTOUCHED: u8 = 0xaa;

pub const MEMORY_LEN: u64 = 16 << 20;
const RING_AREA: u64 = 0x4000;
const BUFFER_AREA: u64 = 2 << 20;
const DEADLINE: Duration = Duration::from_secs(30);

/// A device with a temporary image. Byte `n` of the image has the value `byte_at(n)`.
pub struct Rig {
    pub device: Arc<BlockDevice>,
    pub path: PathBuf,
    _dir: TempDir,
}

pub fn byte_at(offset: u64) -> u8 {
    (offset ^ (offset >> 8).wrapping_mul(31)) as u8
}

pub fn contents(offset: u64, len: u64) -> Vec<u8> {
    (offset..offset + len).map(byte_at).collect()
}

impl Rig {
    pub fn new(engine: EngineKind, queues: u16, read_only: bool) -> Self {
        Self::with(engine, queues, read_only, |device| device)
    }

    /// Like [`Rig::new`], but `change` modifies the device before its first use.
    pub fn with(
        engine: EngineKind,
        queues: u16,
        read_only: bool,
        change: impl FnOnce(BlockDevice) -> BlockDevice,
    ) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("disk.img");
        std::fs::write(&path, contents(0, SECTORS * SECTOR_SIZE)).unwrap();
        let open = OpenOptions {
            read_only,
            ..OpenOptions::unlocked()
        };
        let image = Image::open(&path, open).unwrap();
        let options = Options {
            queues,
            segments: RING_SIZE - 2,
            serial: "serial-0123".into(),
        };
        let device = BlockDevice::new(Arc::new(image), options).unwrap();
        Self {
            device: Arc::new(change(device.with_engine(engine))),
            path,
            _dir: dir,
        }
    }

    /// A device whose image has this cache mode. If the mode needs direct I/O and temporary files
    /// do not support it, prints a message and returns `None`.
    pub fn cached(engine: EngineKind, cache: Cache) -> Option<Self> {
        Self::new(engine, 1, false).reopened(engine, cache)
    }

    /// Opens the same image again with another cache mode. Returns `None` as [`Rig::cached`] does.
    pub fn reopened(mut self, engine: EngineKind, cache: Cache) -> Option<Self> {
        let options = OpenOptions {
            cache,
            ..OpenOptions::unlocked()
        };
        let image = match Image::open(&self.path, options) {
            Err(error @ ImageError::NoDirectIo { .. }) => {
                println!("SKIPPED: {error}");
                return None;
            }
            image => image.unwrap(),
        };
        let options = Options {
            segments: RING_SIZE - 2,
            serial: "serial-0123".into(),
            ..Options::default()
        };
        let device = BlockDevice::new(Arc::new(image), options).unwrap();
        self.device = Arc::new(device.with_engine(engine));
        Some(self)
    }

    pub fn image(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap()
    }
}

/// A device with one queue that serves `image`.
pub fn device(image: Image, engine: EngineKind) -> Arc<BlockDevice> {
    let device = BlockDevice::new(Arc::new(image), Options::default()).unwrap();
    Arc::new(device.with_engine(engine))
}

/// The driver of one queue.
pub struct Driver {
    pub ring: AnyDriverRing,
    pub memory: Arc<GuestMemory>,
    pub vring: Vring,
    pub kick: Arc<SharedEventFd>,
    pub call: Arc<SharedEventFd>,
    pub error: Arc<SharedEventFd>,
    /// The device that was started last, and its runner. The runner owns the thread of the queue.
    runner: Option<(Arc<BlockDevice>, Runner)>,
    /// The writable buffer (address, length) of each request in flight. The key is the head of the
    /// request's chain.
    in_flight: HashMap<u32, (u64, u32)>,
    next_buffer: u64,
    end_of_buffers: u64,
}

/// The answer to a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub head: u32,
    /// The length that the device wrote to the used ring.
    pub written: u32,
    /// The data in the writable buffers, without the status.
    pub data: Vec<u8>,
    /// The last byte of the writable buffers, which is the status.
    pub status: Option<u8>,
}

impl Driver {
    pub fn new(features: u64) -> Self {
        Self::in_memory(memory(MEMORY_LEN), 0, features)
    }

    /// The driver of queue `index`. Each queue uses a different part of `memory`.
    pub fn in_memory(memory: Arc<GuestMemory>, index: u16, features: u64) -> Self {
        let base = RING_AREA * u64::from(index);
        let packed = features & PACKED != 0;
        let ring = AnyDriverRing::new(packed, memory.clone(), base, RING_SIZE);
        let eventfd = || Arc::new(SharedEventFd::new().unwrap());
        let (kick, call, error) = (eventfd(), eventfd(), eventfd());
        let vring = Vring {
            index,
            features,
            layout: ring.layout(),
            next_avail: first_position(packed),
            memory: memory.clone(),
            kick: Some(kick.clone()),
            call: Some(call.clone()),
            error: Some(error.clone()),
        };
        let next_buffer = 0x10_0000 + BUFFER_AREA * u64::from(index);
        Self {
            ring,
            memory,
            vring,
            kick,
            call,
            error,
            runner: None,
            in_flight: HashMap::new(),
            next_buffer,
            end_of_buffers: next_buffer + BUFFER_AREA,
        }
    }

    pub fn start(&mut self, device: &Arc<BlockDevice>) {
        if self
            .runner
            .as_ref()
            .is_none_or(|(known, _)| !Arc::ptr_eq(known, device))
        {
            self.runner = Some((device.clone(), runner(device)));
        }
        let (_, runner) = self.runner.as_mut().unwrap();
        runner.start(self.vring.clone()).unwrap();
    }

    /// Stops the queue. Returns the position at which the next start of the queue has to continue.
    pub fn stop(&mut self) -> u16 {
        let (_, runner) = self.runner.as_mut().unwrap();
        runner.stop_all().unwrap();
        let base = runner.next_avail(self.vring.index).unwrap();
        self.vring.next_avail = base;
        base
    }

    /// Drops the running queue without stopping it.
    pub fn abandon(&mut self) {
        self.runner = None;
    }

    /// Makes all buffers free again.
    ///
    /// # Panics
    ///
    /// When a request is still in flight.
    pub fn rewind_buffers(&mut self) {
        assert!(self.in_flight.is_empty());
        self.next_buffer = self.end_of_buffers - BUFFER_AREA;
    }

    /// Reserves a buffer of `len` bytes. Returns its address.
    pub fn buffer(&mut self, len: u64) -> u64 {
        let addr = self.next_buffer;
        self.next_buffer += len;
        assert!(self.next_buffer <= self.end_of_buffers, "buffers used up");
        addr
    }

    /// Adds a request with the bytes `readable` and with `writable` writable bytes. Both parts are
    /// divided into buffers that end at the offsets `cuts`. Returns the head of the chain.
    pub fn add(&mut self, readable: &[u8], writable: u32, cuts: &[u32]) -> u16 {
        let (buffers, input) = self.lay_out(readable, writable, cuts);
        self.add_buffers(&buffers, (input, writable))
    }

    /// Adds a chain of (address, length, writable?) buffers. The device's answer will be in the
    /// buffer `input` (address, length). Returns the head of the chain.
    pub fn add_buffers(&mut self, buffers: &[(u64, u32, bool)], input: (u64, u32)) -> u16 {
        let head = self.ring.add(buffers);
        self.in_flight.insert(head.into(), input);
        head
    }

    /// Like [`Self::add`], but the chain is in an indirect table, which descriptor `head` points
    /// to.
    pub fn add_indirect(&mut self, head: u16, readable: &[u8], writable: u32, cuts: &[u32]) {
        use virtio::test_utils::{INDIRECT, NEXT, WRITE};
        let (buffers, input) = self.lay_out(readable, writable, cuts);
        self.in_flight.insert(head.into(), (input, writable));
        let table = self.buffer(16 * buffers.len() as u64);
        let ring = self.ring.split();
        for (index, &(addr, len, writable)) in buffers.iter().enumerate() {
            let last = index + 1 == buffers.len();
            let flags = if writable { WRITE } else { 0 } | if last { 0 } else { NEXT };
            let descriptor = (addr, len, flags, index as u16 + 1);
            ring.write_descriptor(GuestAddress(table), index as u16, descriptor);
        }
        let descriptor = (table, 16 * buffers.len() as u32, INDIRECT, 0);
        ring.write_descriptor(ring.layout().desc, head, descriptor);
        ring.publish(head);
    }

    /// Sends a kick, unless the device has asked for no kicks. Returns whether the driver sent a
    /// kick.
    pub fn kick(&mut self) -> bool {
        let wanted = self.ring.wants_kick(self.event_idx());
        if wanted {
            self.kick.signal().unwrap();
        }
        wanted
    }

    /// Waits for the next answer. The driver sleeps until the device sends a call.
    pub fn answer(&mut self) -> Answer {
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.ring.ask_for_call(self.event_idx());
            if let Some(answer) = self.try_answer() {
                return answer;
            }
            wait_for(&self.call, deadline);
        }
    }

    /// The next answer. `None` if the device has not given back another request yet.
    pub fn try_answer(&mut self) -> Option<Answer> {
        let (head, written) = self.ring.pop_used()?;
        let (addr, len) = self.in_flight.remove(&head).expect("answered once");
        let mut data = vec![0; len as usize];
        // Reading fails in tests with buffers outside of the driver's memory.
        let _ = self.memory.read_slice(&mut data, GuestAddress(addr));
        let status = data.pop();
        Some(Answer {
            head,
            written,
            data,
            status,
        })
    }

    /// Adds a request, sends a kick, and waits for the request's answer.
    pub fn run(&mut self, readable: &[u8], writable: u32, cuts: &[u32]) -> Answer {
        let head = self.add(readable, writable, cuts);
        self.kick();
        let answer = self.answer();
        assert_eq!(answer.head, u32::from(head));
        answer
    }

    /// Waits until the device has reported the vring as broken.
    pub fn wait_for_error(&self) {
        wait_for(&self.error, Instant::now() + DEADLINE);
    }

    fn event_idx(&self) -> bool {
        self.vring.features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0
    }

    fn lay_out(
        &mut self,
        readable: &[u8],
        writable: u32,
        cuts: &[u32],
    ) -> (Vec<(u64, u32, bool)>, u64) {
        let output = self.buffer(readable.len() as u64);
        let input = self.buffer(writable.into());
        self.memory
            .write_slice(readable, GuestAddress(output))
            .unwrap();
        let untouched = vec![UNTOUCHED; writable as usize];
        self.memory
            .write_slice(&untouched, GuestAddress(input))
            .unwrap();
        let mut buffers = cut(output, readable.len() as u32, cuts, false);
        buffers.extend(cut(input, writable, cuts, true));
        (buffers, input)
    }
}

/// Divides `len` bytes at `addr` into buffers that end at the offsets `cuts`.
fn cut(addr: u64, len: u32, cuts: &[u32], writable: bool) -> Vec<(u64, u32, bool)> {
    let mut ends: Vec<_> = cuts.iter().copied().filter(|&c| c < len).collect();
    ends.push(len);
    ends.sort_unstable();
    ends.dedup();
    let mut start = 0;
    let mut buffers = Vec::new();
    for end in ends {
        buffers.push((addr + u64::from(start), end - start, writable));
        start = end;
    }
    buffers.retain(|&(_, len, _)| len > 0);
    buffers
}

/// Waits for an eventfd and resets it.
///
/// # Panics
///
/// When the deadline passes.
pub fn wait_for(eventfd: &SharedEventFd, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    let [ready] = poll([Interest::readable(eventfd)], Some(left)).unwrap();
    assert!(ready, "the device did not answer in time");
    eventfd.take().unwrap();
}

/// A runner for the device's queues.
pub fn runner(device: &Arc<BlockDevice>) -> Runner {
    let rings = RingOptions {
        max_size: RING_SIZE,
        ..RingOptions::default()
    };
    Runner::new(device.clone(), rings)
}

/// The header of a request, followed by data to write.
pub fn request(kind: u32, sector: u64, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[8..].copy_from_slice(&sector.to_le_bytes());
    bytes.extend_from_slice(data);
    bytes
}
