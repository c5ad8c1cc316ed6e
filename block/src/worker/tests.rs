//! The moments between a worker's steps, which a running one passes too fast to be tested.

use super::*;
use crate::OpenOptions;
use crate::image::Abilities;
use crate::request::Status;
use std::fs::File;
use std::sync::mpsc::channel;
use std::thread::spawn;
use std::time::Duration;
use tempfile::NamedTempFile;
use virtio::queue::RING_FEATURES;
use virtio::test_utils::{DriverRing, memory};
use virtio_bindings::virtio_blk::{VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_OUT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EFD_NONBLOCK;

/// None that carries transfers out at once.
const KINDS: [EngineKind; 3] = [
    EngineKind::Uring,
    EngineKind::Threads,
    EngineKind::OnTheSpot,
];
const FEATURES: [u64; 2] = [0, RING_FEATURES];
const HEADER: u64 = 0x8000;
const STATUS: u64 = 0x9000;

/// A worker that runs step by step, and its driver, who asks for a read of sector 0 each time.
struct Rig {
    ring: DriverRing,
    worker: Worker,
    kick: Arc<EventFd>,
    call: Arc<EventFd>,
    _file: NamedTempFile,
}

fn eventfd() -> Arc<EventFd> {
    Arc::new(EventFd::new(EFD_NONBLOCK).unwrap())
}

impl Rig {
    fn new(engine: EngineKind, features: u64) -> Self {
        let file = NamedTempFile::new().unwrap();
        file.as_file().set_len(4096).unwrap();
        let image = Image::open(file.path(), OpenOptions::default()).unwrap();
        Self::with_image(engine, features, image, file)
    }

    fn with_image(engine: EngineKind, features: u64, image: Image, file: NamedTempFile) -> Self {
        let memory = memory(0x10000);
        let ring = DriverRing::new(memory.clone(), 0x1000, 16);
        let (kick, call) = (eventfd(), eventfd());
        let worker = Worker::new(Setup {
            index: 0,
            engine,
            image: Arc::new(image),
            id: [0; ID_LEN],
            write_through: false,
            queue: Queue::new(memory, ring.layout(), features, 0).unwrap(),
            kick: Some(kick.clone()),
            call: Some(call.clone()),
            throttle: None,
            shared: Arc::new(Shared {
                stop: AtomicBool::new(false),
                wake: eventfd(),
                next_avail: AtomicU16::new(0),
            }),
        });
        Self {
            ring,
            worker,
            kick,
            call,
            _file: file,
        }
    }

    fn add(&mut self) {
        let data = (0xa000, 512, true);
        self.ring
            .add(&[(HEADER, 16, false), data, (STATUS, 1, true)]);
    }

    fn used(&mut self) -> usize {
        std::iter::from_fn(|| self.ring.pop_used()).count()
    }
}

/// Runs a test with each engine and each kind of notification, on a thread in case it hangs.
fn with_each(test: fn(&mut Rig)) {
    for (kind, features) in KINDS.into_iter().flat_map(|k| FEATURES.map(|f| (k, f))) {
        let (done, waiting) = channel();
        let thread = spawn(move || {
            test(&mut Rig::new(kind, features));
            let _ = done.send(());
        });
        let hangs = waiting.recv_timeout(Duration::from_secs(30)).is_err() && !thread.is_finished();
        assert!(!hangs, "{kind:?} {features:#x} hangs");
        thread.join().unwrap();
    }
}

#[test]
fn looks_again_before_it_sleeps() {
    with_each(|rig| {
        assert!(!rig.worker.take_batch().unwrap());
        // The driver sees no need for a kick, as the worker was just awake.
        rig.worker.queue.disable_kick().unwrap();
        rig.add();
        rig.worker.sleep().unwrap();
        assert!(rig.worker.take_batch().unwrap());
    });
}

#[test]
fn does_not_sleep_past_a_kick() {
    with_each(|rig| {
        rig.kick.write(1).unwrap();
        rig.worker.sleep().unwrap();
    });
}

#[test]
fn finishes_what_it_has_taken() {
    with_each(|rig| {
        for _ in 0..3 {
            rig.add();
        }
        assert!(rig.worker.take_batch().unwrap());
        rig.add();
        rig.worker.finish().unwrap();
        assert_eq!(rig.used(), 3);
        assert_eq!(rig.worker.queue.next_avail(), 3);
    });
}

#[test]
fn takes_no_more_than_it_has_slots_for() {
    with_each(|rig| {
        // A driver that reuses descriptors in flight can offer more than the queue holds.
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
        // Sleep ends when there is a free slot, although nobody kicks.
        while rig.worker.free.is_empty() {
            rig.worker.sleep().unwrap();
            rig.worker.reap().unwrap();
        }
        assert!(rig.worker.take_batch().unwrap());
        rig.worker.finish().unwrap();
        assert_eq!(rig.worker.queue.next_avail(), slots as u16 + 1);
    });
}

#[test]
fn a_write_is_stable_even_if_the_cache_was_turned_off_meanwhile() {
    for kind in KINDS {
        // It takes writes, but no flushes.
        let zero = File::options().read(true).write(true).open("/dev/zero");
        let image = Image::from_file(zero.unwrap(), 4096, Abilities::default());
        let mut rig = Rig::with_image(kind, 0, image, NamedTempFile::new().unwrap());
        let write = VIRTIO_BLK_T_OUT.to_le_bytes();
        let memory = rig.worker.memory.clone();
        memory.write_slice(&write, GuestAddress(HEADER)).unwrap();
        let data = (0xa000, 512, false);
        for (writeback, status) in [(true, Status::Ok), (false, Status::IoErr)] {
            rig.ring
                .add(&[(HEADER, 16, false), data, (STATUS, 1, true)]);
            assert!(rig.worker.take_batch().unwrap());
            rig.worker.image.set_writeback(writeback);
            rig.worker.finish().unwrap();
            assert_eq!(rig.used(), 1);
            let byte: u8 = memory.read_obj(GuestAddress(STATUS)).unwrap();
            assert_eq!(byte, status as u8, "{kind:?}");
        }
    }
}

#[test]
fn calls_once_for_a_batch() {
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
        assert_eq!(rig.call.read().unwrap(), 1);
    });
}

#[test]
fn a_stopped_worker_takes_nothing() {
    with_each(|rig| {
        rig.add();
        rig.worker.shared.stop.store(true, Ordering::Relaxed);
        rig.worker.serve().unwrap();
        rig.worker.finish().unwrap();
        assert_eq!(rig.used(), 0);
        assert_eq!(rig.worker.shared.next_avail.load(Ordering::Relaxed), 0);
    });
}
