//! How vrings are run: kicks and calls, stop and start, broken rings, several queues.

use super::*;
use std::io;
use std::thread::spawn;

fn read_one(driver: &mut Driver) {
    let answer = driver.run(&request(READ, 1, &[]), 513, &[]);
    assert_eq!((answer.status, answer.data), (OK, contents(512, 512)));
}

fn add_reads(driver: &mut Driver, count: u64) -> Vec<u32> {
    (0..count)
        .map(|sector| driver.add(&request(READ, sector, &[]), 513, &[]).into())
        .collect()
}

/// Takes as many answers as there are `heads`, in any order.
fn expect_reads(driver: &mut Driver, mut heads: Vec<u32>) {
    while !heads.is_empty() {
        let answer = driver.answer();
        assert_eq!(answer.status, OK);
        let known = heads.iter().position(|&head| head == answer.head);
        heads.swap_remove(known.unwrap());
    }
}

#[test]
fn queues_run_side_by_side() {
    for (engine, layout) in ways() {
        let rig = Arc::new(Rig::new(engine, 4, false));
        let memory = memory(MEMORY_LEN);
        let threads: Vec<_> = (0..4u16)
            .map(|index| {
                let (rig, memory) = (rig.clone(), memory.clone());
                spawn(move || fill_stripe(&rig, memory, index, FEATURES | layout))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let image = rig.image();
        for sector in 0..200 {
            let expected = (sector % 4) as u8 + 1;
            assert_eq!(image[sector * 512..][..512], [expected; 512], "{sector}");
        }
    }
}

/// Writes every fourth sector, in batches of ten.
fn fill_stripe(rig: &Rig, memory: Arc<GuestMemory>, index: u16, features: u64) {
    let mut driver = Driver::in_memory(memory, index, features);
    driver.start(&rig.device);
    for batch in 0..5 {
        for n in 0..10 {
            let sector = (batch * 10 + n) * 4 + u64::from(index);
            driver.add(&request(WRITE, sector, &[index as u8 + 1; 512]), 1, &[]);
        }
        driver.kick();
        for _ in 0..10 {
            assert_eq!(driver.answer().status, OK);
        }
    }
    assert_eq!(driver.stop(), driver.ring.position());
}

#[test]
fn event_idx_loses_no_wake_up() {
    for (engine, layout) in ways() {
        let rig = Rig::new(engine, 1, false);
        let mut driver = Driver::new(FEATURES | layout | 1 << VIRTIO_RING_F_EVENT_IDX);
        driver.start(&rig.device);
        for round in 0..300 {
            let heads: Vec<_> = (0..1 + round % 7)
                .map(|_| {
                    let head = driver.add(&request(READ, round % SECTORS, &[]), 513, &[]);
                    driver.kick();
                    head.into()
                })
                .collect();
            expect_reads(&mut driver, heads);
            driver.rewind_buffers();
        }
        driver.stop();
    }
}

#[test]
fn event_idx_suppresses_calls() {
    for engine in ENGINES {
        let rig = Rig::new(engine, 1, false);
        let mut driver = Driver::new(FEATURES | 1 << VIRTIO_RING_F_EVENT_IDX);
        // No call before the fifth buffer is used.
        driver.ring.split().set_used_event(4);
        for _ in 0..4 {
            driver.add(&request(READ, 0, &[]), 513, &[]);
        }
        driver.start(&rig.device);
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut answers = 0;
        while answers < 4 {
            answers += usize::from(driver.try_answer().is_some());
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        driver.stop();
        assert!(!driver.call.take().unwrap(), "the driver was called");
        driver.add(&request(READ, 0, &[]), 513, &[]);
        driver.start(&rig.device);
        driver.answer();
        driver.stop();
    }
}

#[test]
fn gives_buffers_back_in_order_if_the_driver_wants_that() {
    for (engine, layout) in ways() {
        let rig = Rig::new(engine, 1, false);
        let mut driver = Driver::new(FEATURES | layout | IN_ORDER);
        driver.start(&rig.device);
        for _ in 0..50 {
            let heads: Vec<_> = (0..20)
                .map(|n| match n % 3 {
                    // Some take longer than others.
                    0 => driver.add(&request(READ, 0, &[]), 1 + (SECTORS * 512) as u32 / 4, &[]),
                    1 => driver.add(&request(FLUSH, 0, &[]), 1, &[]),
                    _ => driver.add(&request(GET_ID, 0, &[]), 21, &[]),
                })
                .collect();
            driver.kick();
            for head in heads {
                let answer = driver.answer();
                assert_eq!((answer.head, answer.status), (head.into(), OK));
            }
            driver.rewind_buffers();
        }
        assert_eq!(driver.stop(), driver.ring.position());
    }
}

#[test]
fn serves_what_was_there_before_it_started() {
    for (engine, layout) in ways() {
        let rig = Rig::new(engine, 1, false);
        let mut driver = Driver::new(FEATURES | layout);
        let heads = add_reads(&mut driver, 3);
        driver.kick();
        driver.start(&rig.device);
        expect_reads(&mut driver, heads);
        // And without any kick.
        driver.stop();
        let heads = add_reads(&mut driver, 3);
        driver.start(&rig.device);
        expect_reads(&mut driver, heads);
    }
}

#[test]
fn goes_on_where_it_stopped() {
    for (engine, layout) in ways() {
        let rig = Rig::new(engine, 1, false);
        let mut driver = Driver::new(FEATURES | layout);
        for _ in 0..100 {
            let begin = driver.ring.position();
            driver.start(&rig.device);
            let heads = add_reads(&mut driver, 20);
            driver.kick();
            // Somewhere in the middle of them: what was taken is answered, the rest is not.
            let base = driver.stop();
            let answered: Vec<_> = std::iter::from_fn(|| driver.try_answer()).collect();
            let taken = base.wrapping_sub(begin) & 0x7fff;
            // Two descriptors to a chain; a packed ring counts those, modulo its size.
            match layout {
                PACKED => assert_eq!(answered.len(), usize::from(taken % RING_SIZE) / 2),
                _ => assert_eq!(answered.len(), usize::from(taken)),
            }
            assert!(answered.iter().all(|answer| answer.status == OK));
            driver.start(&rig.device);
            let done: Vec<_> = answered.iter().map(|answer| answer.head).collect();
            let rest = heads.into_iter().filter(|head| !done.contains(head));
            expect_reads(&mut driver, rest.collect());
            assert_eq!(driver.stop(), driver.ring.position());
            driver.rewind_buffers();
        }
    }
}

#[test]
fn stops_while_idle_and_before_it_ever_ran() {
    for (engine, layout) in ways() {
        let rig = Rig::new(engine, 1, false);
        let mut driver = Driver::new(FEATURES | layout);
        for _ in 0..20 {
            driver.start(&rig.device);
            assert_eq!(driver.stop(), driver.ring.position());
        }
        driver.start(&rig.device);
        read_one(&mut driver);
        assert_eq!(driver.stop(), driver.ring.position());
    }
}

#[test]
fn leaves_kicks_on_for_whoever_comes_next() {
    for (engine, layout) in ways() {
        let rig = Rig::new(engine, 1, false);
        let mut driver = Driver::new(FEATURES | layout);
        for _ in 0..20 {
            driver.start(&rig.device);
            read_one(&mut driver);
            driver.stop();
            assert!(driver.ring.kicks_are_on());
        }
    }
}

#[test]
fn polls_without_a_kick() {
    for (engine, layout) in ways() {
        let rig = Rig::new(engine, 1, false);
        let mut driver = Driver::new(FEATURES | layout);
        driver.vring.kick = None;
        driver.start(&rig.device);
        for _ in 0..5 {
            read_one(&mut driver);
        }
        assert_eq!(driver.stop(), driver.ring.position());
    }
}

#[test]
fn a_blocking_kick_does_not_block() {
    for engine in ENGINES {
        let rig = Rig::new(engine, 1, false);
        let mut driver = Driver::new(FEATURES);
        rustix::io::ioctl_fionbio(&driver.kick, false).unwrap();
        driver.start(&rig.device);
        for _ in 0..5 {
            read_one(&mut driver);
        }
        // Somebody else may take the kick at any moment.
        driver.kick.signal().unwrap();
        driver.stop();
    }
}

#[test]
fn needs_no_call() {
    for engine in ENGINES {
        let rig = Rig::new(engine, 1, false);
        let mut driver = Driver::new(FEATURES);
        driver.vring.call = None;
        driver.start(&rig.device);
        driver.add(&request(READ, 1, &[]), 513, &[]);
        driver.kick();
        let deadline = Instant::now() + Duration::from_secs(30);
        while driver.try_answer().is_none() {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        driver.stop();
    }
}

#[test]
fn a_broken_ring_ends_its_queue_alone() {
    for (engine, layout) in ways() {
        let rig = Rig::new(engine, 2, false);
        let memory = memory(MEMORY_LEN);
        let mut bad = Driver::in_memory(memory.clone(), 0, FEATURES | layout);
        let mut good = Driver::in_memory(memory, 1, FEATURES | layout);
        bad.start(&rig.device);
        good.start(&rig.device);
        let heads = add_reads(&mut bad, 3);
        let position = bad.ring.position();
        bad.ring.break_it();
        bad.kick.signal().unwrap();
        bad.wait_for_error();
        expect_reads(&mut bad, heads);
        // Nothing more is taken, not even what would be all right.
        bad.add(&request(READ, 0, &[]), 513, &[]);
        bad.kick.signal().unwrap();
        read_one(&mut good);
        assert_eq!(bad.stop(), position);
        assert!(bad.try_answer().is_none());
        assert!(!bad.error.take().unwrap(), "reported twice");
        read_one(&mut good);
        assert_eq!(good.stop(), good.ring.position());
    }
}

#[test]
fn does_not_start_what_is_not_there() {
    let rig = Rig::new(EngineKind::Auto, 1, false);
    let driver = Driver::new(FEATURES);
    let start = |change: fn(&mut Vring)| {
        let mut vring = driver.vring.clone();
        change(&mut vring);
        driver::runner(&rig.device).start(vring).err().unwrap()
    };
    let error = start(|vring| vring.index = 1);
    assert!(matches!(error, StartError::NoSuchQueue(1)));
    let error = start(|vring| vring.layout.desc = GuestAddress(MEMORY_LEN));
    assert!(matches!(error, StartError::Queue(_)));
}

#[test]
fn leaves_no_thread_behind_when_dropped() {
    for engine in ENGINES {
        let rig = Rig::new(engine, 1, false);
        let mut driver = Driver::new(FEATURES);
        driver.start(&rig.device);
        read_one(&mut driver);
        driver.abandon();
        // The thread had a reference, and only its end gives that back.
        assert_eq!(Arc::strong_count(&driver.vring.memory), 3);
    }
}

#[derive(Debug)]
struct Panics;

impl Notifier for Panics {
    fn notify(&self) -> io::Result<()> {
        panic!("a notifier that panics, as the test wants it to");
    }
}

#[test]
fn a_panic_is_reported_and_can_be_stopped() {
    for engine in ENGINES {
        let rig = Rig::new(engine, 1, false);
        let mut driver = Driver::new(FEATURES);
        driver.vring.call = Some(Arc::new(Panics));
        driver.start(&rig.device);
        driver.add(&request(READ, 1, &[]), 513, &[]);
        driver.kick();
        driver.wait_for_error();
        assert_eq!(driver.stop(), 1);
        assert_eq!(driver.try_answer().unwrap().status, OK);
    }
}
