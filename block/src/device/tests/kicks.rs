//! Tests of a driver whose kick is always readable.

use super::*;
use crate::{Rate, RateLimits};
use std::io::Write;
use std::os::fd::OwnedFd;
use virtio::test_utils::RestlessKick;

/// Starts a driver of `device` whose kick eventfd is always readable. Returns the driver and the
/// eventfd.
fn restless(device: &Arc<BlockDevice>) -> (Driver, RestlessKick) {
    let kick = RestlessKick::new();
    let mut driver = Driver::new(FEATURES);
    driver.kick = kick.eventfd().clone();
    driver.vring.kick = Some(kick.eventfd().clone());
    driver.start(device);
    (driver, kick)
}

/// Sleeps for 100 ms. In this time a queue can take as many signals from its kick eventfd as it
/// wants.
fn give_time() {
    ipc::poll([ipc::Interest::Nothing], Some(Duration::from_millis(100))).unwrap();
}

#[test]
fn a_kick_that_stays_readable_costs_64_wake_ups_for_each_request() {
    for engine in ENGINES {
        let rig = Rig::new(engine, 1, false);
        let (mut driver, kick) = restless(&rig.device);
        for requests in 1..=3 {
            let answer = driver.run(&request(READ, 1, &[]), 513, &[]);
            assert_eq!((answer.status, answer.data), (OK, contents(512, 512)));
            give_time();
            // The queue takes at most 64 signals from the kick eventfd before the first request,
            // and at most 64 after each request.
            let taken = kick.taken();
            assert!((60..=64 * (requests + 1)).contains(&taken), "{taken}");
        }
        driver.stop();
    }
}

#[test]
fn a_queue_whose_request_waits_because_of_limits_does_not_wait_for_kicks() {
    for engine in ENGINES {
        let limits = RateLimits {
            // The second request waits for 250 ms.
            iops: Some(Rate {
                per_second: 4,
                burst: 1,
            }),
            ..RateLimits::default()
        };
        let rig = Rig::with(engine, 1, false, |device| device.with_limits(limits));
        let (mut driver, kick) = restless(&rig.device);
        for _ in 0..2 {
            driver.add(&request(READ, 1, &[]), 513, &[]);
        }
        for _ in 0..2 {
            assert_eq!(driver.answer().status, OK);
        }
        assert!(kick.taken() <= 3 * 64, "{}", kick.taken());
        driver.stop();
    }
}

#[test]
fn a_kick_that_stays_readable_costs_as_little_while_a_request_is_in_flight() {
    // The image is a pipe. An io_uring can read from a pipe at any offset, and the read completes
    // when the pipe has data.
    let (pipe, mut data) = std::io::pipe().unwrap();
    let image = Image::from_file(OwnedFd::from(pipe).into(), 4096, Abilities::default());
    let device = driver::device(image, EngineKind::Uring);
    let (mut driver, kick) = restless(&device);
    driver.add(&request(READ, 0, &[]), 513, &[]);
    driver.kick();
    give_time();
    assert!(
        driver.try_answer().is_none(),
        "the request is not in flight"
    );
    assert!(kick.taken() <= 2 * 64, "{}", kick.taken());
    data.write_all(&[7; 512]).unwrap();
    let answer = driver.answer();
    assert_eq!((answer.status, answer.data), (OK, vec![7; 512]));
    driver.stop();
}
