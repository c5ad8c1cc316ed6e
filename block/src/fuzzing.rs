//! Serves a queue whose memory holds arbitrary bytes. The fuzz target in `fuzz/` uses this module,
//! and a test uses it with the fuzz target's stored inputs. This module also has the function that
//! `benches/` measures.

pub mod qcow2;

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use virtio::queue::{IN_ORDER, RING_FEATURES};
use virtio::test_utils::{anonymous_file, memory};
use virtio::vring::first_position;
use virtio::{Chain, GuestMemory, Region, ServedQueue, Vring, VringLayout, Wake};
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_FLUSH;
use vm_memory::{Bytes, GuestAddress};

use crate::device::{BlockDevice, Options};
use crate::engine::{EngineKind, RingSlot};
use crate::image::Abilities;
use crate::operation::SECTOR_SIZE;
use crate::request::{Limits, Request};
use crate::worker::Worker;
use crate::{Cache, Image, OpenOptions, Rate, RateLimits};

/// Number of descriptors of the queue. The descriptors begin at address 0. The available ring and
/// the used ring come after them.
const QUEUE_SIZE: u16 = 16;
const AVAIL: u64 = 0x100;
const USED: u64 = 0x140;

const MEMORY: u64 = 0x1_0000;
const DISK: u64 = 64 * SECTOR_SIZE;

/// The start and length of each region of memory that has several. Two regions touch each other,
/// and nothing is between the second region and the third one.
const REGIONS: [(u64, u64); 3] = [(0, 0x3000), (0x3000, 0x5000), (0xa000, 0x6000)];

/// Maximum number of times that the worker takes requests. Without a maximum, a random vring could
/// keep the worker busy forever.
const ROUNDS: u32 = 4;

/// Length of the memory that a driver changes while its requests are served. The memory has the
/// rings and the first tables and headers.
const CHANGED: u16 = 0x400;

/// The bits of an input's first byte.
mod option {
    /// The driver may use indirect descriptors and EVENT_IDX.
    pub const RING_FEATURES: u8 = 1;
    /// The driver cannot flush.
    pub const NO_FLUSH: u8 = 2;
    /// The vring is packed.
    pub const PACKED: u8 = 4;
    /// The driver wants its buffers back in their order.
    pub const IN_ORDER: u8 = 8;
    /// The memory has several regions.
    pub const REGIONS: u8 = 0x10;
    /// The driver changes its memory while its requests are served.
    pub const RESTLESS: u8 = 0x20;
    /// The disk has limits on its speed.
    pub const LIMITS: u8 = 0x40;
    /// Threads serve the queue. The image is opened for direct I/O, so that buffers that are not
    /// aligned go through bounce buffers.
    pub const DIRECT: u8 = 0x80;
}

/// The objects that a check needs and that are slow to create. All checks of a thread share these
/// objects.
struct Bench {
    memory: Arc<GuestMemory>,
    regions: Arc<GuestMemory>,
    plain: Disk,
    direct: Disk,
}

/// A file and the devices that serve it.
struct Disk {
    file: Arc<File>,
    device: BlockDevice,
    limited: BlockDevice,
}

impl Bench {
    fn new() -> Self {
        let regions = REGIONS.map(|(start, len)| {
            let region = Region::map(anonymous_file(len), 0, GuestAddress(start), len, true);
            region.expect("memory")
        });
        let regions = GuestMemory::from_regions(regions.into()).expect("regions in order");
        Self {
            memory: memory(MEMORY),
            regions: Arc::new(regions),
            plain: Disk::new(anonymous_file(DISK), |file| {
                let abilities = Abilities {
                    discard: Some(4096),
                    zero: true,
                    secure_erase: true,
                    ..Abilities::default()
                };
                let file = file.try_clone().expect("another descriptor");
                Image::from_file(file, DISK, abilities)
            }),
            direct: Disk::new(anonymous_file(DISK), |file| {
                let options = OpenOptions {
                    cache: Cache::None,
                    lock: false,
                    ..OpenOptions::default()
                };
                Image::open(path_of(file), options).expect("a file in memory")
            }),
        }
    }
}

impl Disk {
    fn new(file: Arc<File>, image: impl FnOnce(&File) -> Image) -> Self {
        let image = Arc::new(image(&file));
        let device = || BlockDevice::new(image.clone(), Options::default()).expect("the default");
        let rate = Some(Rate {
            per_second: 10_000,
            burst: 4,
        });
        Self {
            file,
            device: device(),
            limited: device().with_limits(RateLimits {
                iops: rate,
                ..RateLimits::default()
            }),
        }
    }
}

/// A path that names an open file, which may have no other name.
fn path_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// Whether the chain is a valid request to a disk of 1 MiB.
pub fn parse(chain: &Chain, memory: &GuestMemory) -> bool {
    let limits = Limits {
        size: 1 << 20,
        read_only: false,
        logical_block: 512,
        discard: true,
        write_zeroes: true,
        secure_erase: true,
    };
    Request::parse(chain, memory, &limits).is_ok()
}

/// Serves a queue in memory that begins with the bytes of `input` after the first byte. The bits of
/// the first byte choose features of the vring, the memory and the disk.
///
/// # Panics
///
/// When the device does not give a request back, or changes the size of its image.
pub fn check(input: &[u8]) {
    thread_local!(static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) });
    let Some((&options, bytes)) = input.split_first() else {
        return;
    };
    BENCH.with_borrow_mut(|bench| bench.get_or_insert_with(Bench::new).serve(options, bytes));
}

impl Bench {
    fn serve(&self, options: u8, bytes: &[u8]) {
        let has = |option| options & option != 0;
        let (memory, regions) = match has(option::REGIONS) {
            true => (&self.regions, &REGIONS[..]),
            false => (&self.memory, &[(0, MEMORY)][..]),
        };
        for &(start, len) in regions {
            fill(memory, start, len, bytes);
        }
        let (disk, engine) = match has(option::DIRECT) {
            true => (&self.direct, EngineKind::Threads),
            false => (&self.plain, EngineKind::OnTheSpot),
        };
        let device = match has(option::LIMITS) {
            true => &disk.limited,
            false => &disk.device,
        };
        let mut queue = queue(memory, options);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            if has(option::RESTLESS) {
                scope.spawn(|| change(memory, bytes, &done));
            }
            let _done = Done(&done);
            serve(device, engine, &mut queue);
        });
        let size = disk.file.metadata().expect("an open file").len();
        assert_eq!(size, DISK, "the image has another size");
    }
}

/// Fills a region with the bytes at its addresses, and with zeroes after the last byte.
fn fill(memory: &GuestMemory, start: u64, len: u64, bytes: &[u8]) {
    let mut content = vec![0; len as usize];
    let from = bytes.get(start as usize..).unwrap_or_default();
    let count = from.len().min(content.len());
    content[..count].copy_from_slice(&from[..count]);
    let written = memory.write_slice(&content, GuestAddress(start));
    written.expect("all of the region");
}

/// Sets its flag when it is dropped, also after a panic.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Changes the memory until the requests have been served. Each four bytes name an address and a
/// value.
fn change(memory: &GuestMemory, bytes: &[u8], done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        for four in bytes.chunks_exact(4) {
            let address = u16::from_le_bytes([four[0], four[1]]) % CHANGED;
            let written = memory.write_slice(&four[2..], GuestAddress(address.into()));
            written.expect("memory");
        }
        thread::yield_now();
    }
}

fn serve(device: &BlockDevice, engine: EngineKind, queue: &mut ServedQueue) {
    let wake = Wake::new().expect("an eventfd");
    let slot = RingSlot::default();
    let mut ring = slot.lock();
    let mut worker = Worker::new(&device.disk, engine, &mut ring, queue, &wake);
    for _ in 0..ROUNDS {
        let taken = worker.take_batch();
        let reaped = worker.reap();
        let called = worker.call();
        let (Ok(taken), Ok(reaped), Ok(())) = (taken, reaped, called) else {
            break;
        };
        if !taken && !reaped {
            break;
        }
    }
    // The result is ignored, because `finish` may fail if the driver has broken the vring.
    let _ = worker.finish();
    assert!(worker.is_idle(), "a request was not given back");
}

fn queue(memory: &Arc<GuestMemory>, options: u8) -> ServedQueue {
    let bit = |option| u64::from(options & option != 0);
    let layout = VringLayout {
        packed: options & option::PACKED != 0,
        size: QUEUE_SIZE,
        desc: GuestAddress(0),
        avail: GuestAddress(AVAIL),
        used: GuestAddress(USED),
    };
    let rings = (RING_FEATURES * bit(option::RING_FEATURES)) | (IN_ORDER * bit(option::IN_ORDER));
    // If the driver cannot flush, the device puts the data of each write on stable storage before
    // it acknowledges the write.
    let flush = (1 << VIRTIO_BLK_F_FLUSH) * (1 - bit(option::NO_FLUSH));
    let queue = ServedQueue::alone(Vring {
        index: 0,
        features: rings | flush,
        layout,
        next_avail: first_position(layout.packed),
        memory: memory.clone(),
        kick: None,
        call: None,
        error: None,
    });
    queue.expect("a layout within memory")
}

#[cfg(test)]
mod tests;
