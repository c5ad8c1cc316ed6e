//! Tests of limits with a clock that stands still until the test moves it.

use super::features::ranges;
use super::*;
use crate::limit::{Clock, Throttle};
use crate::{Rate, RateLimits};
use std::sync::atomic::{AtomicU64, Ordering};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD as DISCARD, VIRTIO_BLK_T_WRITE_ZEROES as WRITE_ZEROES,
};

/// A driver of a device with limits, and the time that the device's clock shows, in nanoseconds.
struct Limited {
    rig: Rig,
    driver: Driver,
    time: Arc<AtomicU64>,
    /// The position of each chain in the vring, and then the position after the last chain.
    positions: Vec<u16>,
}

impl Limited {
    fn new((engine, layout): (EngineKind, u64), limits: RateLimits) -> Self {
        let time = Arc::new(AtomicU64::new(0));
        let throttle = Arc::new(Throttle::new(limits, Clock::Manual(time.clone())));
        let rig = Rig::with(engine, 1, false, |mut device| {
            device.disk.throttle = Some(throttle);
            device
        });
        let mut driver = Driver::new(FEATURES | layout);
        driver.start(&rig.device);
        Self {
            positions: vec![driver.vring.next_avail],
            rig,
            driver,
            time,
        }
    }

    fn add(&mut self, readable: &[u8], writable: u32) {
        self.driver.add(readable, writable, &[16]);
        self.positions.push(self.driver.ring.position());
        self.driver.kick();
    }

    /// Moves the clock. The queue is stopped meanwhile, because a sleeping queue would not notice
    /// that this clock moves.
    fn pass(&mut self, time: Duration) {
        self.driver.stop();
        self.time
            .fetch_add(time.as_nanos() as u64, Ordering::SeqCst);
        self.driver.start(&self.rig.device);
    }

    /// Waits for the next answer, which has to be a success. Then stops and restarts the queue
    /// twice. `count` is the number of requests that the device must have taken by then.
    fn expect_answer(&mut self, count: usize) -> Vec<u8> {
        let answer = self.driver.answer();
        assert_eq!(answer.status, OK);
        for _ in 0..2 {
            assert_eq!(self.driver.stop(), self.positions[count]);
            assert_eq!(self.driver.try_answer(), None);
            self.driver.start(&self.rig.device);
        }
        answer.data
    }
}

/// Runs a test with each engine and each layout of the rings.
fn with_limits(limits: RateLimits, test: impl Fn(&mut Limited)) {
    for way in ways() {
        let mut limited = Limited::new(way, limits);
        test(&mut limited);
        limited.driver.stop();
    }
}

fn rate(per_second: u64, burst: u64) -> Option<Rate> {
    Some(Rate { per_second, burst })
}

#[test]
fn requests_begin_at_the_rate_of_the_limit_even_if_the_queue_restarts() {
    let limits = RateLimits {
        iops: rate(1000, 1),
        ..RateLimits::default()
    };
    with_limits(limits, |limited| {
        for sector in 0..20 {
            limited.add(&request(READ, sector, &[]), 513);
        }
        for sector in 0..20 {
            let data = limited.expect_answer(sector as usize + 1);
            assert_eq!(data, contents(512 * sector, 512));
            limited.pass(Duration::from_millis(1));
        }
    });
}

#[test]
fn requests_without_limits_pass_but_not_before_an_earlier_request_of_their_queue() {
    let limits = RateLimits {
        bps_read: rate(512, 512),
        ..RateLimits::default()
    };
    with_limits(limits, |limited| {
        let (read, write) = (request(READ, 0, &[]), request(WRITE, 1, &[7; 4096]));
        limited.add(&write, 1);
        limited.expect_answer(1);
        limited.add(&read, 513);
        limited.add(&read, 513);
        limited.expect_answer(2);
        limited.add(&write, 1);
        assert_eq!(limited.driver.stop(), limited.positions[2]);
        limited.driver.start(&limited.rig.device);
        assert_eq!(limited.driver.try_answer(), None);
        limited.pass(Duration::from_secs(1));
        assert_eq!(limited.driver.answer().status, OK);
        limited.expect_answer(4);
    });
}

#[test]
fn discarded_and_zeroed_ranges_wait_like_written_ones() {
    let limits = RateLimits {
        bps_write: rate(4096, 4096),
        ..RateLimits::default()
    };
    for kind in [DISCARD, WRITE_ZEROES] {
        with_limits(limits, |limited| {
            for _ in 0..2 {
                limited.add(&request(kind, 0, &ranges(&[(0, 4, 0), (8, 4, 0)])), 1);
            }
            limited.expect_answer(1);
            limited.pass(Duration::from_millis(999));
            assert_eq!(limited.driver.stop(), limited.positions[1]);
            limited.driver.start(&limited.rig.device);
            limited.pass(Duration::from_millis(1));
            limited.expect_answer(2);
        });
    }
}
