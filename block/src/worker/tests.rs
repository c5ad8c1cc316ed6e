//! Tests of the states of a worker between its steps. In a running worker these states do not last
//! long enough for a test.

use super::*;
use crate::device::{BlockDevice, Options};
use crate::engine::RingSlot;
use crate::image::Abilities;
use crate::limit::{Clock, Throttle};
use crate::request::Status;
use crate::{Image, OpenOptions, Rate, RateLimits};
use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread::spawn;
use std::time::Duration;

use ipc::SharedEventFd;
use tempfile::NamedTempFile;
use virtio::queue::{MAX_DESCRIPTORS, RING_FEATURES};
use virtio::test_utils::{DriverRing, INDIRECT, NEXT, WRITE, anonymous_file, memory};
use virtio::{Region, Vring};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_OUT,
};
use vm_memory::{Bytes, GuestAddress};

/// The kinds of engines that never complete a transfer during the call that starts the transfer.
const KINDS: [EngineKind; 3] = [
    EngineKind::Uring,
    EngineKind::Threads,
    EngineKind::OnTheSpot,
];
/// The features of a driver that flushes, and can turn the write cache off.
const CACHED: u64 = 1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_CONFIG_WCE;
const FEATURES: [u64; 2] = [CACHED, CACHED | RING_FEATURES];
const HEADER: u64 = 0x8000;
const STATUS: u64 = 0x9000;

/// A worker that runs step by step, and its driver. Each request reads sector 0.
struct Rig<'a> {
    ring: DriverRing,
    worker: Worker<'a>,
    kick: Arc<SharedEventFd>,
    call: Arc<SharedEventFd>,
}

impl Rig<'_> {
    fn add(&mut self) {
        let data = (0xa000, 512, true);
        self.ring
            .add(&[(HEADER, 16, false), data, (STATUS, 1, true)]);
    }

    fn used(&mut self) -> usize {
        std::iter::from_fn(|| self.ring.pop_used()).count()
    }
}

/// Runs a test with a worker for this image.
fn with_image(kind: EngineKind, features: u64, image: Image, test: impl FnOnce(&mut Rig<'_>)) {
    let device = BlockDevice::new(Arc::new(image), Options::default()).unwrap();
    with_device(kind, features, &device, test);
}

/// Runs a test with a worker for this device.
fn with_device(
    kind: EngineKind,
    features: u64,
    device: &BlockDevice,
    test: impl FnOnce(&mut Rig<'_>),
) {
    with_memory(kind, features, device, memory(0x10000), test);
}

/// Runs a test with a worker for this device, and a driver with this memory.
fn with_memory(
    kind: EngineKind,
    features: u64,
    device: &BlockDevice,
    memory: Arc<GuestMemory>,
    test: impl FnOnce(&mut Rig<'_>),
) {
    let ring = DriverRing::new(memory.clone(), 0x1000, 32);
    let eventfd = || Arc::new(SharedEventFd::new().unwrap());
    let (kick, call) = (eventfd(), eventfd());
    let queue = ServedQueue::alone(Vring {
        index: 0,
        features,
        layout: ring.layout(),
        next_avail: 0,
        memory,
        kick: Some(kick.clone()),
        call: Some(call.clone()),
        error: None,
    });
    let (mut queue, wake, slot) = (queue.unwrap(), Wake::new().unwrap(), RingSlot::default());
    let mut uring = slot.lock();
    let worker = Worker::new(&device.disk, kind, &mut uring, &mut queue, &wake);
    test(&mut Rig {
        ring,
        worker,
        kick,
        call,
    });
}

/// Runs a test with each engine, with and without EVENT_IDX and indirect descriptors. Each test has
/// its own thread, because the test may hang.
fn with_each(test: fn(&mut Rig<'_>)) {
    for (kind, features) in KINDS.into_iter().flat_map(|k| FEATURES.map(|f| (k, f))) {
        let (done, waiting) = channel();
        let thread = spawn(move || {
            let file = NamedTempFile::new().unwrap();
            file.as_file().set_len(4096).unwrap();
            let image = Image::open(file.path(), OpenOptions::default()).unwrap();
            with_image(kind, features, image, test);
            let _ = done.send(());
        });
        let hangs = waiting.recv_timeout(Duration::from_secs(30)).is_err() && !thread.is_finished();
        assert!(!hangs, "{kind:?} {features:#x} hangs");
        thread.join().unwrap();
    }
}

#[test]
fn a_worker_looks_for_requests_again_before_it_sleeps() {
    with_each(|rig| {
        assert!(!rig.worker.take_batch().unwrap());
        // The driver sends no kick, because the worker was awake and had asked for none.
        rig.worker.queue.ring.disable_kick().unwrap();
        rig.add();
        rig.worker.sleep().unwrap();
        assert!(rig.worker.take_batch().unwrap());
    });
}

#[test]
fn a_worker_does_not_sleep_after_a_kick() {
    with_each(|rig| {
        rig.kick.signal().unwrap();
        rig.worker.sleep().unwrap();
    });
}

#[test]
fn finish_completes_the_requests_that_were_taken_and_no_others() {
    with_each(|rig| {
        for _ in 0..3 {
            rig.add();
        }
        assert!(rig.worker.take_batch().unwrap());
        rig.add();
        rig.worker.finish().unwrap();
        assert_eq!(rig.used(), 3);
        assert_eq!(rig.worker.queue.ring.next_avail(), 3);
    });
}

/// A device that reads at most 512 bytes a second, by a clock that shows the nanoseconds in `time`.
fn limited_device(time: &Arc<AtomicU64>) -> BlockDevice {
    let zero = File::options().read(true).write(true).open("/dev/zero");
    let image = Image::from_file(zero.unwrap(), 4096, Abilities::default());
    let mut device = BlockDevice::new(Arc::new(image), Options::default()).unwrap();
    let limits = RateLimits {
        bps: Some(Rate {
            per_second: 512,
            burst: 1024,
        }),
        ..RateLimits::default()
    };
    let throttle = Throttle::new(limits, Clock::Manual(time.clone()));
    device.disk.throttle = Some(Arc::new(throttle));
    device
}

#[test]
fn a_driver_that_resets_its_device_again_and_again_gets_no_more_than_the_limit() {
    for (kind, features) in KINDS.into_iter().flat_map(|k| FEATURES.map(|f| (k, f))) {
        let time = Arc::new(AtomicU64::new(0));
        let device = limited_device(&time);
        let mut served = 0;
        for round in 0..50 {
            // Each round resets the device. The vring is new, and the device begins with the first
            // entry of the vring.
            with_device(kind, features, &device, |rig| {
                for _ in 0..3 {
                    rig.add();
                }
                rig.worker.take_batch().unwrap();
                rig.worker.finish().unwrap();
                let used = rig.used();
                assert_eq!(usize::from(rig.worker.queue.ring.next_avail()), used);
                served += used;
            });
            // The limit allows two requests in the burst, and one more each second.
            assert_eq!(served, 2 + round / 10, "{kind:?}");
            time.fetch_add(100_000_000, Ordering::SeqCst);
        }
    }
}

#[test]
fn a_worker_takes_only_as_many_requests_as_it_has_slots() {
    with_each(|rig| {
        // A driver that reuses descriptors in flight can offer more requests than the queue has
        // entries.
        let slots = rig.worker.free.len();
        for _ in 0..slots {
            rig.ring.publish(0);
        }
        rig.ring
            .write_descriptor(rig.ring.layout().desc, 0, (HEADER, 16, 1, 1));
        rig.ring
            .write_descriptor(rig.ring.layout().desc, 1, (STATUS - 512, 513, 2, 0));
        assert!(rig.worker.take_batch().unwrap());
        assert!(rig.worker.free.is_empty());
        rig.ring.publish(0);
        assert!(!rig.worker.take_batch().unwrap());
        // A result ends the sleep and frees a slot, although the driver sends no kick.
        while rig.worker.free.is_empty() {
            rig.worker.sleep().unwrap();
            rig.worker.reap().unwrap();
        }
        assert!(rig.worker.take_batch().unwrap());
        rig.worker.finish().unwrap();
        assert_eq!(rig.worker.queue.ring.next_avail(), slots as u16 + 1);
    });
}

#[test]
fn requests_of_the_maximum_size_use_little_memory_at_a_time() {
    const TABLE: u64 = 0xb000;
    let most = MAX_DESCRIPTORS;
    for kind in KINDS {
        let zero = File::options().read(true).write(true).open("/dev/zero");
        let image = Image::from_file(zero.unwrap(), 4096, Abilities::default());
        with_image(kind, CACHED | RING_FEATURES, image, |rig| {
            // A read of 1024 bytes, each of which has a buffer of its own.
            let table = GuestAddress(TABLE);
            for index in 1..most - 1 {
                let byte = 0xa000 + u64::from(index);
                rig.ring
                    .write_descriptor(table, index, (byte, 1, NEXT | WRITE, index + 1));
            }
            rig.ring.write_descriptor(table, 0, (HEADER, 16, NEXT, 1));
            rig.ring
                .write_descriptor(table, most - 1, (STATUS, 1, WRITE, 0));
            let all = (TABLE, 16 * u32::from(most), INDIRECT, 0);
            rig.ring.write_descriptor(rig.ring.layout().desc, 0, all);
            for _ in 0..20 {
                rig.ring.publish(0);
            }
            assert!(rig.worker.take_batch().unwrap());
            // For each request, the worker counts 1026 buffers of the driver and 1024 buffers for
            // the kernel.
            assert_eq!(rig.worker.queue.ring.next_avail(), 8, "{kind:?}");
            assert!(!rig.worker.can_take().unwrap());
            // The other requests are taken when results have come, although the driver sends no
            // kick.
            while rig.worker.queue.ring.next_avail() < 20 {
                rig.worker.sleep().unwrap();
                rig.worker.reap().unwrap();
                rig.worker.take_batch().unwrap();
            }
            rig.worker.finish().unwrap();
            assert_eq!((rig.used(), rig.worker.pieces), (20, 0), "{kind:?}");
        });
    }
}

#[test]
fn buffers_over_many_regions_use_little_memory_at_a_time() {
    const REGIONS: u64 = 512;
    const DATA: Range<u64> = 0x1_0000..REGIONS << 12;
    let memory = || {
        let file = anonymous_file(REGIONS << 12);
        let region = |n| Region::map(file.clone(), n << 12, GuestAddress(n << 12), 0x1000, true);
        let regions = (0..REGIONS).map(|n| region(n).unwrap()).collect();
        Arc::new(GuestMemory::from_regions(regions).unwrap())
    };
    let buffers = [(DATA.start, (DATA.end - DATA.start) as u32, true); 8];
    let request = [&[(HEADER, 16, false)][..], &buffers, &[(STATUS, 1, true)]].concat();
    for kind in KINDS {
        let zero = File::options().read(true).write(true).open("/dev/zero");
        let image = Image::from_file(zero.unwrap(), 64 << 20, Abilities::default());
        let device = BlockDevice::new(Arc::new(image), Options::default()).unwrap();
        with_memory(kind, CACHED, &device, memory(), |rig| {
            rig.ring.add(&request);
            for _ in 0..7 {
                rig.ring.publish(0);
            }
            // Each request has 8 buffers in 496 regions each.
            assert!(rig.worker.take_batch().unwrap());
            assert_eq!(rig.worker.queue.ring.next_avail(), 5, "{kind:?}");
            while rig.worker.queue.ring.next_avail() < 8 {
                rig.worker.sleep().unwrap();
                rig.worker.reap().unwrap();
                rig.worker.take_batch().unwrap();
            }
            rig.worker.finish().unwrap();
            assert_eq!((rig.used(), rig.worker.pieces), (8, 0), "{kind:?}");
        });
    }
}

#[test]
fn a_write_in_flight_is_flushed_if_the_cache_is_turned_off_meanwhile() {
    for kind in KINDS {
        // The file /dev/zero accepts writes but cannot be flushed.
        let zero = File::options().read(true).write(true).open("/dev/zero");
        let image = Image::from_file(zero.unwrap(), 4096, Abilities::default());
        with_image(kind, CACHED, image, |rig| {
            let write = VIRTIO_BLK_T_OUT.to_le_bytes();
            let memory = rig.worker.memory.clone();
            memory.write_slice(&write, GuestAddress(HEADER)).unwrap();
            let data = (0xa000, 512, false);
            for (writeback, status) in [(true, Status::Ok), (false, Status::IoErr)] {
                rig.ring
                    .add(&[(HEADER, 16, false), data, (STATUS, 1, true)]);
                assert!(rig.worker.take_batch().unwrap());
                let disk = rig.worker.disk;
                disk.cache.set_writeback(writeback, &disk.image);
                rig.worker.finish().unwrap();
                assert_eq!(rig.used(), 1);
                let byte: u8 = memory.read_obj(GuestAddress(STATUS)).unwrap();
                assert_eq!(byte, status as u8, "{kind:?}");
            }
        });
    }
}

#[test]
fn a_batch_of_requests_causes_one_call() {
    with_each(|rig| {
        let get_id = VIRTIO_BLK_T_GET_ID.to_le_bytes();
        let memory = rig.worker.memory.clone();
        memory.write_slice(&get_id, GuestAddress(HEADER)).unwrap();
        for _ in 0..3 {
            rig.add();
        }
        assert!(rig.worker.take_batch().unwrap());
        rig.worker.call().unwrap();
        rig.worker.call().unwrap();
        assert_eq!(rig.used(), 3);
        assert!(rig.call.take().unwrap());
        rig.worker.call().unwrap();
        assert!(!rig.call.take().unwrap(), "called twice");
    });
}
