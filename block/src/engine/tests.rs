use super::rings::Ring;
use super::wakers::POLL_INTERVAL;
use super::*;
use crate::OpenOptions;
use ipc::SharedEventFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;
use virtio::test_utils::{DriverRing, memory};
use virtio::{Chain, Queue};
use vm_memory::{Bytes, GuestAddress};

/// None that carries transfers out at once.
const KINDS: [EngineKind; 3] = [
    EngineKind::Uring,
    EngineKind::Threads,
    EngineKind::OnTheSpot,
];
const BUFFER: u64 = 0x4000;

struct Rig {
    file: NamedTempFile,
    memory: Arc<GuestMemory>,
    /// 4 KiB at [`BUFFER`].
    buffers: Segments,
    kick: Arc<SharedEventFd>,
    stop: Arc<SharedEventFd>,
}

fn eventfd() -> Arc<SharedEventFd> {
    Arc::new(SharedEventFd::new().unwrap())
}

impl Rig {
    fn new() -> Self {
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [0x5a; 8192]).unwrap();
        let memory = memory(0x10000);
        let mut ring = DriverRing::new(memory.clone(), 0x1000, 4);
        let mut queue = Queue::new(memory.clone(), ring.layout(), 0, 0).unwrap();
        ring.add(&[(BUFFER, 4096, true)]);
        let mut chain = Chain::default();
        assert!(queue.pop(&mut chain).unwrap());
        Self {
            file,
            memory,
            buffers: chain.writable,
            kick: eventfd(),
            stop: eventfd(),
        }
    }

    fn engine<'a>(
        &self,
        kind: EngineKind,
        read_only: bool,
        kick: bool,
        ring: &'a mut Ring,
    ) -> Engine<'a> {
        let options = OpenOptions {
            read_only,
            ..OpenOptions::default()
        };
        let image = Image::open(self.file.path(), options).unwrap();
        let wakers = Wakers {
            kick: kick.then(|| self.kick.clone()),
            stop: self.stop.clone(),
        };
        Engine::new(kind, Arc::new(image), self.memory.clone(), 4, wakers, ring)
    }

    fn begin(&self, engine: &mut Engine<'_>, slot: u16, operation: Operation) {
        let range = Range {
            offset: 512,
            len: 1024,
        };
        let begun = engine.transfer(slot, operation, range, Data::new(&self.buffers, 0), false);
        assert!(matches!(begun, Ok(Begun::InFlight)));
    }

    fn memory(&self) -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        self.memory
            .read_slice(&mut bytes, GuestAddress(BUFFER))
            .unwrap();
        bytes
    }
}

/// Waits for the next operation to end.
fn ended(engine: &mut Engine) -> (u16, io::Result<()>) {
    loop {
        if let Some(ended) = engine.next_ended() {
            return ended;
        }
        engine.wait(None).unwrap();
    }
}

#[test]
fn carries_out_each_operation() {
    for kind in KINDS {
        let rig = Rig::new();
        let mut ring = Ring::default();
        let mut engine = rig.engine(kind, false, true, &mut ring);
        rig.begin(&mut engine, 3, Operation::Read);
        assert_eq!(engine.in_flight(), 1);
        engine.submit().unwrap();
        let (slot, result) = ended(&mut engine);
        assert_eq!((slot, engine.in_flight()), (3, 0));
        result.unwrap();
        assert_eq!(rig.memory(), [0x5a; 1024]);

        for (operation, byte) in [(Operation::Write, 1), (Operation::WriteStable, 2)] {
            rig.memory
                .write_slice(&[byte; 1024], GuestAddress(BUFFER))
                .unwrap();
            rig.begin(&mut engine, 0, operation);
            ended(&mut engine).1.unwrap();
            let image = std::fs::read(rig.file.path()).unwrap();
            assert_eq!(image[512..1536], [byte; 1024]);
        }
        engine.flush(1).unwrap();
        ended(&mut engine).1.unwrap();
        assert!(engine.next_ended().is_none());
    }
}

#[test]
fn zeroes_and_holes_keep_the_size() {
    for kind in KINDS {
        for operation in [Operation::Unmap, Operation::Zero, Operation::Punch] {
            let rig = Rig::new();
            let mut ring = Ring::default();
            let mut engine = rig.engine(kind, false, true, &mut ring);
            let step = |operation, offset, len| Step {
                operation,
                range: Range { offset, len },
            };
            let steps = [
                step(operation, 512, 1024),
                step(operation, 7680, 512),
                step(Operation::Allocate, 4096, 8192),
                Step::FLUSH,
            ];
            engine.steps(2, &steps).unwrap();
            let (slot, result) = ended(&mut engine);
            assert_eq!((slot, engine.in_flight()), (2, 0));
            result.unwrap();
            let mut expected = [0x5a; 8192];
            expected[512..1536].fill(0);
            expected[7680..].fill(0);
            assert_eq!(std::fs::read(rig.file.path()).unwrap(), expected);
        }
    }
}

#[test]
fn a_file_takes_no_block_device_ioctls() {
    for kind in KINDS {
        for operation in [Operation::Discard, Operation::SecureErase] {
            let rig = Rig::new();
            let mut ring = Ring::default();
            let mut engine = rig.engine(kind, false, true, &mut ring);
            let range = Range {
                offset: 0,
                len: 512,
            };
            engine.steps(0, &[Step { operation, range }]).unwrap();
            let error = ended(&mut engine).1.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
            // The engine goes on.
            rig.begin(&mut engine, 0, Operation::Read);
            ended(&mut engine).1.unwrap();
        }
    }
}

#[test]
fn says_what_failed() {
    for kind in KINDS {
        let rig = Rig::new();
        let mut ring = Ring::default();
        let mut engine = rig.engine(kind, true, true, &mut ring);
        rig.begin(&mut engine, 1, Operation::Write);
        rig.begin(&mut engine, 2, Operation::Read);
        let mut results = [ended(&mut engine), ended(&mut engine)];
        results.sort_by_key(|(slot, _)| *slot);
        let error = results[0].1.as_ref().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        assert!(results[1].1.is_ok());
    }
}

#[test]
fn a_slot_holds_one_operation() {
    for kind in KINDS {
        let rig = Rig::new();
        let mut ring = Ring::default();
        let mut engine = rig.engine(kind, false, true, &mut ring);
        rig.begin(&mut engine, 0, Operation::Read);
        assert!(matches!(engine.flush(0), Err(BeginError::Engine(_))));
        ended(&mut engine).1.unwrap();
        engine.flush(0).unwrap();
    }
}

#[test]
fn too_short_buffers_are_refused_and_leave_the_slot_free() {
    for kind in KINDS {
        let rig = Rig::new();
        let mut ring = Ring::default();
        let mut engine = rig.engine(kind, false, true, &mut ring);
        let range = Range {
            offset: 0,
            len: 1024,
        };
        let result = engine.transfer(
            0,
            Operation::Read,
            range,
            Data::new(&rig.buffers, 4000),
            false,
        );
        assert!(matches!(result, Err(BeginError::OutsideMemory)));
        assert_eq!(engine.in_flight(), 0);
        rig.begin(&mut engine, 0, Operation::Read);
    }
}

#[test]
fn a_dropped_engine_has_ended_everything() {
    for kind in KINDS {
        for submit in [false, true] {
            let rig = Rig::new();
            let mut ring = Ring::default();
            let mut engine = rig.engine(kind, false, true, &mut ring);
            rig.begin(&mut engine, 0, Operation::Read);
            if submit {
                engine.submit().unwrap();
            }
            drop(engine);
            assert_eq!(rig.memory(), [0x5a; 1024]);
        }
    }
}

#[test]
fn wakes_up_for_each_kick_and_resets_it() {
    for kind in KINDS {
        let rig = Rig::new();
        let mut ring = Ring::default();
        let mut engine = rig.engine(kind, false, true, &mut ring);
        for _ in 0..3 {
            rig.kick.signal().unwrap();
            // A kick takes up to two wake-ups: that it is there, and that it was reset.
            while is_set(&rig.kick) {
                engine.wait(None).unwrap();
                assert!(engine.next_ended().is_none());
            }
        }
    }
}

fn is_set(eventfd: &SharedEventFd) -> bool {
    ipc::poll([ipc::Interest::readable(eventfd)], Some(Duration::ZERO)).unwrap()[0]
}

#[test]
fn wakes_up_to_stop() {
    for kind in KINDS {
        for kick in [false, true] {
            let rig = Rig::new();
            let mut ring = Ring::default();
            let mut engine = rig.engine(kind, false, kick, &mut ring);
            rig.stop.signal().unwrap();
            engine.wait(None).unwrap();
        }
    }
}

#[test]
fn sleeps_until_there_is_a_reason_not_to() {
    for kind in KINDS {
        let rig = Rig::new();
        let mut ring = Ring::default();
        let mut engine = rig.engine(kind, false, true, &mut ring);
        // Once woken by a kick, and that reset.
        rig.kick.signal().unwrap();
        while is_set(&rig.kick) {
            engine.wait(None).unwrap();
        }
        assert!(engine.next_ended().is_none());
        let written = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (stop, written) = (rig.stop.clone(), written.clone());
            move || {
                // Long enough to show, short enough not to matter; the order is what is tested.
                std::thread::sleep(Duration::from_millis(20));
                written.store(true, Ordering::SeqCst);
                stop.signal().unwrap();
            }
        });
        // The kick's two completions may come one by one.
        let mut wake_ups = 0;
        while !written.load(Ordering::SeqCst) {
            engine.wait(None).unwrap();
            assert!(engine.next_ended().is_none());
            wake_ups += 1;
        }
        thread.join().unwrap();
        assert!(wake_ups <= 2, "{kind:?} does not sleep");
    }
}

#[test]
fn sleeps_shortly_without_a_kick() {
    for kind in KINDS {
        let rig = Rig::new();
        let mut ring = Ring::default();
        let mut engine = rig.engine(kind, false, false, &mut ring);
        let start = Instant::now();
        engine.wait(None).unwrap();
        assert!(start.elapsed() >= POLL_INTERVAL / 2, "it does not sleep");
    }
}

#[test]
fn cached_data_is_there_at_once() {
    let rig = Rig::new();
    let mut ring = Ring::default();
    let mut engine = rig.engine(EngineKind::Auto, false, true, &mut ring);
    let range = Range {
        offset: 512,
        len: 1024,
    };
    // It was written just now; but a kernel may be short of memory.
    let begun = engine.transfer(0, Operation::Read, range, Data::new(&rig.buffers, 0), false);
    if let Begun::Ended(result) = begun.unwrap() {
        result.unwrap();
        assert_eq!(engine.in_flight(), 0);
    } else {
        ended(&mut engine).1.unwrap();
    }
    assert_eq!(rig.memory(), [0x5a; 1024]);
}

impl Rig {
    /// A rig whose image is in memory.
    fn in_memory() -> Self {
        let file = NamedTempFile::new_in("/dev/shm").unwrap();
        std::fs::write(file.path(), [0x5a; 8192]).unwrap();
        Self {
            file,
            ..Self::new()
        }
    }
}

#[test]
fn memory_is_written_and_read_at_once() {
    let rig = Rig::in_memory();
    let mut ring = Ring::default();
    let mut engine = rig.engine(EngineKind::Auto, false, true, &mut ring);
    let mut transfer = |operation, offset| {
        let range = Range { offset, len: 1024 };
        let begun = engine.transfer(0, operation, range, Data::new(&rig.buffers, 0), false);
        match begun.unwrap() {
            Begun::Ended(result) => result,
            Begun::InFlight => panic!("it waits for nothing"),
        }
    };
    let zeroes = [0; 1024];
    rig.memory
        .write_slice(&zeroes, GuestAddress(BUFFER))
        .unwrap();
    transfer(Operation::Write, 7000).unwrap();
    assert_eq!(std::fs::read(rig.file.path()).unwrap()[7000..8024], zeroes);
    transfer(Operation::Read, 0).unwrap();
    assert_eq!(rig.memory(), [0x5a; 1024]);
    rig.file.as_file().set_len(512).unwrap();
    transfer(Operation::Read, 0).unwrap_err();
}

#[test]
fn what_has_to_be_stable_is_left_to_the_ring() {
    for rig in [Rig::new(), Rig::in_memory()] {
        let mut ring = Ring::default();
        let mut engine = rig.engine(EngineKind::Auto, false, true, &mut ring);
        rig.begin(&mut engine, 0, Operation::WriteStable);
        ended(&mut engine).1.unwrap();
    }
}

#[test]
fn threads_serve_more_than_there_are_of_them() {
    let rig = Rig::new();
    let slots = 4 * pool::MAX_THREADS as u16;
    for settle in [true, false] {
        let image = Image::open(rig.file.path(), OpenOptions::unlocked()).unwrap();
        let wakers = Wakers {
            kick: None,
            stop: rig.stop.clone(),
        };
        let (image, memory) = (Arc::new(image), rig.memory.clone());
        let mut ring = Ring::default();
        let kind = EngineKind::Threads;
        let mut engine = Engine::new(kind, image, memory, slots, wakers, &mut ring);
        for slot in 0..slots {
            rig.begin(&mut engine, slot, Operation::Read);
        }
        if settle {
            let mut ended: Vec<_> = (0..slots).map(|_| ended(&mut engine)).collect();
            ended.sort_by_key(|(slot, _)| *slot);
            assert!((0..slots).eq(ended.iter().map(|(slot, _)| *slot)));
            assert!(ended.into_iter().all(|(_, result)| result.is_ok()));
        }
        drop(engine);
        assert_eq!(rig.memory(), [0x5a; 1024]);
    }
}

#[test]
fn a_ring_serves_one_engine_after_the_other() {
    let rig = Rig::new();
    let mut ring = Ring::default();
    for round in 0..5 {
        let mut engine = rig.engine(EngineKind::Uring, false, true, &mut ring);
        assert!(matches!(engine.backend, Backend::Uring(_)), "round {round}");
        rig.begin(&mut engine, 0, Operation::Read);
        ended(&mut engine).1.unwrap();
        // It leaves while it waits for both eventfds.
        engine.wait(Some(Duration::from_millis(1))).unwrap();
    }
    // The last one's waits are over: the kick is there for others to take.
    rig.kick.signal().unwrap();
    assert!(rig.kick.take().unwrap());
}

#[test]
fn more_operations_than_the_ring_has_entries_all_end() {
    let rig = Rig::new();
    let image = Image::open(rig.file.path(), OpenOptions::unlocked()).unwrap();
    let wakers = Wakers {
        kick: None,
        stop: rig.stop.clone(),
    };
    let (image, memory, slots) = (Arc::new(image), rig.memory.clone(), 1024);
    let mut ring = Ring::default();
    let mut engine = Engine::new(EngineKind::Uring, image, memory, slots, wakers, &mut ring);
    assert!(matches!(engine.backend, Backend::Uring(_)));
    for slot in 0..slots {
        rig.begin(&mut engine, slot, Operation::Read);
    }
    let mut slots_ended: Vec<_> = (0..slots).map(|_| ended(&mut engine).0).collect();
    slots_ended.sort_unstable();
    assert!((0..slots).eq(slots_ended));
}
