//! Tests of started vrings: kicks and calls, stop and restart, broken vrings, and several queues.

use super::*;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// Waits for one answer to each request in `heads`, in any order.
fn expect_reads(driver: &mut Driver, mut heads: Vec<u32>) {
    while !heads.is_empty() {
        let answer = driver.answer();
        assert_eq!(answer.status, OK);
        let known = heads.iter().position(|&head| head == answer.head);
        heads.swap_remove(known.unwrap());
    }
}

#[test]
fn queues_are_served_at_the_same_time() {
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

/// Writes every fourth sector from sector `index` on, 50 sectors in total, in batches of ten
/// requests.
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
fn no_wake_up_is_lost_with_event_idx() {
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
fn a_driver_suppresses_calls_with_event_idx() {
    for engine in ENGINES {
        let rig = Rig::new(engine, 1, false);
        let mut driver = Driver::new(FEATURES | 1 << VIRTIO_RING_F_EVENT_IDX);
        // The driver does not ask for a call until the device has used the fifth buffer.
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
        let mut calls = [0; 8];
        rustix::io::read(&driver.call, &mut calls).unwrap();
        assert_eq!(
            u64::from_ne_bytes(calls),
            1,
            "calls other than the call at the start"
        );
        driver.add(&request(READ, 0, &[]), 513, &[]);
        driver.start(&rig.device);
        driver.answer();
        driver.stop();
    }
}

#[test]
fn with_in_order_buffers_come_back_in_the_order_of_the_requests() {
    for (engine, layout) in ways() {
        let rig = Rig::new(engine, 1, false);
        let mut driver = Driver::new(FEATURES | layout | IN_ORDER);
        driver.start(&rig.device);
        for _ in 0..50 {
            let heads: Vec<_> = (0..20)
                .map(|n| match n % 3 {
                    // A read of a quarter of the disk takes longer than the other requests.
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
fn requests_from_before_the_start_are_served_with_and_without_a_kick() {
    for (engine, layout) in ways() {
        let rig = Rig::new(engine, 1, false);
        let mut driver = Driver::new(FEATURES | layout);
        let heads = add_reads(&mut driver, 3);
        driver.kick();
        driver.start(&rig.device);
        expect_reads(&mut driver, heads);
        // For the second start, the driver adds requests but does not send a kick.
        driver.stop();
        let heads = add_reads(&mut driver, 3);
        driver.start(&rig.device);
        expect_reads(&mut driver, heads);
    }
}

#[test]
fn a_restarted_queue_goes_on_where_it_stopped() {
    for (engine, layout) in ways() {
        let rig = Rig::new(engine, 1, false);
        let mut driver = Driver::new(FEATURES | layout);
        for _ in 0..100 {
            let begin = driver.ring.position();
            driver.start(&rig.device);
            let heads = add_reads(&mut driver, 20);
            driver.kick();
            // The stop may come at any moment. The device answers exactly the requests that it had
            // taken before the stop.
            let base = driver.stop();
            let answered: Vec<_> = std::iter::from_fn(|| driver.try_answer()).collect();
            let taken = base.wrapping_sub(begin) & 0x7fff;
            // The position in a packed vring counts descriptors modulo the vring's size, and each
            // chain has two descriptors.
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
fn a_queue_stops_while_idle_and_before_its_first_request() {
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
fn a_stopped_queue_leaves_kicks_on() {
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
fn a_queue_without_a_kick_polls() {
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
fn a_kick_eventfd_that_blocks_does_not_hang_the_queue() {
    for engine in ENGINES {
        let rig = Rig::new(engine, 1, false);
        let mut driver = Driver::new(FEATURES);
        rustix::io::ioctl_fionbio(&driver.kick, false).unwrap();
        driver.start(&rig.device);
        for _ in 0..5 {
            read_one(&mut driver);
        }
        // A stop directly after a kick must not hang.
        driver.kick.signal().unwrap();
        driver.stop();
    }
}

#[test]
fn a_queue_without_a_call_serves_a_polling_driver() {
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
fn a_broken_vring_ends_only_its_own_queue() {
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
        // The queue takes no more requests, so this valid request stays in the vring.
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
fn a_missing_queue_and_rings_outside_of_memory_are_not_started() {
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
fn a_dropped_runner_leaves_no_thread_behind() {
    for engine in ENGINES {
        let rig = Rig::new(engine, 1, false);
        let mut driver = Driver::new(FEATURES);
        driver.start(&rig.device);
        read_one(&mut driver);
        driver.abandon();
        // The queue's thread has ended, so its reference to the memory is gone.
        assert_eq!(Arc::strong_count(&driver.vring.memory), 3);
    }
}

/// A notifier that panics, but not at the start of its queue.
#[derive(Debug, Default)]
struct Panics(AtomicBool);

impl Notifier for Panics {
    fn notify(&self) -> io::Result<()> {
        let started = self.0.swap(true, Ordering::SeqCst);
        assert!(!started, "this panic is part of the test");
        Ok(())
    }
}

#[test]
fn a_queue_that_panics_is_reported_and_can_be_stopped() {
    for engine in ENGINES {
        let rig = Rig::new(engine, 1, false);
        let mut driver = Driver::new(FEATURES);
        driver.vring.call = Some(Arc::new(Panics::default()));
        driver.start(&rig.device);
        driver.add(&request(READ, 1, &[]), 513, &[]);
        driver.kick();
        driver.wait_for_error();
        assert_eq!(driver.stop(), 1);
        assert_eq!(driver.try_answer().unwrap().status, OK);
    }
}
