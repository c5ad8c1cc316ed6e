use super::rings::Ring;
use super::*;
use crate::OpenOptions;
use ipc::SharedEventFd;
use std::time::Duration;
use tempfile::NamedTempFile;
use virtio::test_utils::{DriverRing, memory};
use virtio::{Chain, Queue};
use vm_memory::{Bytes, GuestAddress};

mod sleep;

/// The kinds of engines that never complete a transfer during the call that starts the transfer.
const KINDS: [EngineKind; 3] = [
    EngineKind::Uring,
    EngineKind::Threads,
    EngineKind::OnTheSpot,
];
const BUFFER: u64 = 0x4000;

struct Rig {
    file: NamedTempFile,
    memory: Arc<GuestMemory>,
    /// One buffer of 4 KiB at [`BUFFER`].
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

    fn start(&self, engine: &mut Engine<'_>, slot: u16, operation: Operation) {
        let range = Range {
            offset: 512,
            len: 1024,
        };
        let started = engine.transfer(slot, operation, range, Data::new(&self.buffers, 0), false);
        assert!(matches!(started, Ok(Started::InFlight)));
    }

    fn memory(&self) -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        self.memory
            .read_slice(&mut bytes, GuestAddress(BUFFER))
            .unwrap();
        bytes
    }
}

/// A sleep that a kick ends.
fn for_kick(limit: Option<Duration>) -> Sleep {
    Sleep { kick: true, limit }
}

/// Waits for the next completion.
fn completion(engine: &mut Engine) -> (u16, io::Result<()>) {
    loop {
        if let Some(completion) = engine.next_completion() {
            return completion;
        }
        engine.wait(Sleep::without_kicks(None)).unwrap();
    }
}

#[test]
fn reads_writes_and_flushes_are_carried_out() {
    for kind in KINDS {
        let rig = Rig::new();
        let mut ring = Ring::default();
        let mut engine = rig.engine(kind, false, true, &mut ring);
        rig.start(&mut engine, 3, Operation::Read);
        assert_eq!(engine.in_flight(), 1);
        engine.submit().unwrap();
        let (slot, result) = completion(&mut engine);
        assert_eq!((slot, engine.in_flight()), (3, 0));
        result.unwrap();
        assert_eq!(rig.memory(), [0x5a; 1024]);

        for (operation, byte) in [(Operation::Write, 1), (Operation::WriteStable, 2)] {
            rig.memory
                .write_slice(&[byte; 1024], GuestAddress(BUFFER))
                .unwrap();
            rig.start(&mut engine, 0, operation);
            completion(&mut engine).1.unwrap();
            let image = std::fs::read(rig.file.path()).unwrap();
            assert_eq!(image[512..1536], [byte; 1024]);
        }
        engine.flush(1).unwrap();
        completion(&mut engine).1.unwrap();
        assert!(engine.next_completion().is_none());
    }
}

#[test]
fn zeroes_holes_and_allocation_keep_the_size_of_the_file() {
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
            let (slot, result) = completion(&mut engine);
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
fn an_ioctl_on_a_file_fails_and_the_engine_goes_on() {
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
            let error = completion(&mut engine).1.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
            rig.start(&mut engine, 0, Operation::Read);
            completion(&mut engine).1.unwrap();
        }
    }
}

#[test]
fn an_error_is_reported_for_its_own_slot() {
    for kind in KINDS {
        let rig = Rig::new();
        let mut ring = Ring::default();
        let mut engine = rig.engine(kind, true, true, &mut ring);
        rig.start(&mut engine, 1, Operation::Write);
        rig.start(&mut engine, 2, Operation::Read);
        let mut results = [completion(&mut engine), completion(&mut engine)];
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
        rig.start(&mut engine, 0, Operation::Read);
        assert!(matches!(engine.flush(0), Err(EngineError::Io(_))));
        completion(&mut engine).1.unwrap();
        engine.flush(0).unwrap();
    }
}

#[test]
fn buffers_that_are_too_short_are_refused_and_leave_the_slot_free() {
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
        assert!(matches!(result, Err(EngineError::Buffer(_))));
        assert_eq!(engine.in_flight(), 0);
        rig.start(&mut engine, 0, Operation::Read);
    }
}

#[test]
fn a_dropped_engine_has_completed_all_operations() {
    for kind in KINDS {
        for submit in [false, true] {
            let rig = Rig::new();
            let mut ring = Ring::default();
            let mut engine = rig.engine(kind, false, true, &mut ring);
            rig.start(&mut engine, 0, Operation::Read);
            if submit {
                engine.submit().unwrap();
            }
            drop(engine);
            assert_eq!(rig.memory(), [0x5a; 1024]);
        }
    }
}

#[test]
fn data_in_the_page_cache_is_read_at_once() {
    let rig = Rig::new();
    let mut ring = Ring::default();
    let mut engine = rig.engine(EngineKind::Auto, false, true, &mut ring);
    let range = Range {
        offset: 512,
        len: 1024,
    };
    // The page cache should have the data, because the data was written a moment ago. But a kernel
    // that is short of memory may have dropped the data.
    let started = engine.transfer(0, Operation::Read, range, Data::new(&rig.buffers, 0), false);
    if let Started::Completed(result) = started.unwrap() {
        result.unwrap();
        assert_eq!(engine.in_flight(), 0);
    } else {
        completion(&mut engine).1.unwrap();
    }
    assert_eq!(rig.memory(), [0x5a; 1024]);
}

impl Rig {
    /// A test setup whose image is a file in memory (tmpfs).
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
fn a_file_in_memory_is_written_and_read_at_once() {
    let rig = Rig::in_memory();
    let mut ring = Ring::default();
    let mut engine = rig.engine(EngineKind::Auto, false, true, &mut ring);
    let mut transfer = |operation, offset| {
        let range = Range { offset, len: 1024 };
        let started = engine.transfer(0, operation, range, Data::new(&rig.buffers, 0), false);
        match started.unwrap() {
            Started::Completed(result) => result,
            Started::InFlight => panic!("a file in memory does not wait"),
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
fn a_stable_write_is_never_made_at_once() {
    for rig in [Rig::new(), Rig::in_memory()] {
        let mut ring = Ring::default();
        let mut engine = rig.engine(EngineKind::Auto, false, true, &mut ring);
        rig.start(&mut engine, 0, Operation::WriteStable);
        completion(&mut engine).1.unwrap();
    }
}

#[test]
fn a_pool_serves_more_operations_than_it_has_threads() {
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
            rig.start(&mut engine, slot, Operation::Read);
        }
        if settle {
            let mut completions: Vec<_> = (0..slots).map(|_| completion(&mut engine)).collect();
            completions.sort_by_key(|(slot, _)| *slot);
            assert!((0..slots).eq(completions.iter().map(|(slot, _)| *slot)));
            assert!(completions.into_iter().all(|(_, result)| result.is_ok()));
        }
        drop(engine);
        assert_eq!(rig.memory(), [0x5a; 1024]);
    }
}

#[test]
fn a_ring_serves_one_engine_after_another() {
    let rig = Rig::new();
    let mut ring = Ring::default();
    for round in 0..5 {
        let mut engine = rig.engine(EngineKind::Uring, false, true, &mut ring);
        assert!(
            matches!(engine.executor, Executor::Uring(_)),
            "round {round}"
        );
        rig.start(&mut engine, 0, Operation::Read);
        completion(&mut engine).1.unwrap();
        // The engine is dropped while its io_uring waits for both eventfds.
        engine
            .wait(for_kick(Some(Duration::from_millis(1))))
            .unwrap();
    }
    // The io_uring no longer waits for kicks, so it does not reset the kick eventfd.
    rig.kick.signal().unwrap();
    assert!(rig.kick.take().unwrap());
}

#[test]
fn more_operations_than_the_ring_has_entries_are_all_completed() {
    let rig = Rig::new();
    let image = Image::open(rig.file.path(), OpenOptions::unlocked()).unwrap();
    let wakers = Wakers {
        kick: None,
        stop: rig.stop.clone(),
    };
    let (image, memory, slots) = (Arc::new(image), rig.memory.clone(), 1024);
    let mut ring = Ring::default();
    let mut engine = Engine::new(EngineKind::Uring, image, memory, slots, wakers, &mut ring);
    assert!(matches!(engine.executor, Executor::Uring(_)));
    for slot in 0..slots {
        rig.start(&mut engine, slot, Operation::Read);
    }
    let mut slots_completed: Vec<_> = (0..slots).map(|_| completion(&mut engine).0).collect();
    slots_completed.sort_unstable();
    assert!((0..slots).eq(slots_completed));
}

#[test]
fn a_ring_of_another_thread_is_replaced_by_threads() {
    let rig = Rig::new();
    let mut ring = Ring::default();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let engine = rig.engine(EngineKind::Uring, false, true, &mut ring);
            matches!(engine.executor, Executor::Uring(_))
        });
        assert!(other.join().unwrap());
    });
    let mut engine = rig.engine(EngineKind::Uring, false, true, &mut ring);
    assert!(matches!(engine.executor, Executor::Pool(_)));
    rig.start(&mut engine, 0, Operation::Read);
    completion(&mut engine).1.unwrap();
}
