//! Tests of limits that do not depend on exact times.

use super::*;
use crate::{Rate, RateLimits};

fn limited(engine: EngineKind, limits: RateLimits) -> (Rig, Driver) {
    let rig = Rig::with(engine, 1, false, |device| device.with_limits(limits));
    let mut driver = Driver::new(FEATURES);
    driver.start(&rig.device);
    (rig, driver)
}

fn rate(per_second: u64) -> Option<Rate> {
    let burst = 1;
    Some(Rate { per_second, burst })
}

fn add_reads(driver: &mut Driver, count: u64) {
    for sector in 0..count {
        driver.add(&request(READ, sector, &[]), 513, &[]);
    }
    driver.kick();
}

#[test]
fn twenty_reads_at_1000_per_second_take_19_milliseconds_or_more() {
    for engine in ENGINES {
        let limits = RateLimits {
            iops: rate(1000),
            ..RateLimits::default()
        };
        let begin = Instant::now();
        let (_rig, mut driver) = limited(engine, limits);
        add_reads(&mut driver, 20);
        for sector in 0..20 {
            let answer = driver.answer();
            assert_eq!(answer.status, OK);
            assert_eq!(answer.data, contents(512 * sector, 512));
        }
        assert!(begin.elapsed() >= Duration::from_millis(19));
        driver.stop();
    }
}

#[test]
fn a_stop_does_not_wait_for_limits_and_requests_without_limits_pass() {
    for engine in ENGINES {
        let limits = RateLimits {
            // After a read of 512 bytes, a second read has to wait for 512 seconds.
            bps_read: rate(1),
            ..RateLimits::default()
        };
        let begin = Instant::now();
        let (rig, mut driver) = limited(engine, limits);
        let write = driver.run(&request(WRITE, 0, &[7; 4096]), 1, &[]);
        assert_eq!(write.status, OK);
        add_reads(&mut driver, 1);
        assert_eq!(driver.answer().status, OK);
        add_reads(&mut driver, 3);
        assert!(driver.try_answer().is_none());
        driver.stop();
        let mut answers = 0;
        while let Some(answer) = driver.try_answer() {
            assert_eq!(answer.status, OK);
            answers += 1;
        }
        assert!(answers <= 1, "{answers}");
        assert_eq!(driver.vring.next_avail, 2 + answers);
        // Limits belong to the disk, so a restart of the queue does not reset them.
        driver.start(&rig.device);
        driver.kick();
        assert!(driver.try_answer().is_none());
        driver.stop();
        assert!(begin.elapsed() < Duration::from_secs(60));
    }
}
