//! Tests of notifiers for used buffers.

use super::*;

/// A notifier that counts its notifications.
#[derive(Debug, Default)]
struct Counter(AtomicU32, Option<Arc<SharedEventFd>>);

impl Notifier for Counter {
    fn notify(&self) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        self.1.as_ref().map_or(Ok(()), |next| next.notify())
    }
}

#[test]
fn notifiers_change_ten_thousand_times_under_load_and_no_request_is_lost() {
    const CHANGES: u64 = 10_000;
    let (device, starts) = Echo::new(1, Mode::Echo);
    let mut runner = Runner::new(device.clone(), RingOptions::default());
    let mut driver = Driver::alone();
    runner.start(driver.vring.clone()).unwrap();
    for _ in 0..CHANGES {
        let call = Counter(AtomicU32::new(0), Some(driver.call.clone()));
        driver.add();
        runner.set_call(0, Some(Arc::new(call)));
        runner.set_error(0, Some(driver.error.clone()));
        driver.wait_used();
    }
    runner.stop([0]).unwrap();
    assert_eq!(device.served.load(Ordering::SeqCst), CHANGES);
    assert_eq!(runner.next_avail(0), Some(CHANGES as u16));
    assert_eq!(starts.try_iter().count(), 1, "the queue was restarted");
    assert_eq!(device.threads.lock().unwrap().len(), 1);
}

#[test]
fn only_the_newest_notifier_is_notified() {
    let (device, _starts) = Echo::new(1, Mode::Echo);
    let mut runner = Runner::new(device, RingOptions::default());
    let mut driver = Driver::alone();
    runner.start(driver.vring.clone()).unwrap();
    wait(&driver.call);
    let new = Arc::new(SharedEventFd::new().unwrap());
    runner.set_call(0, Some(new.clone()));
    driver.add();
    wait(&new);
    assert!(!driver.call.take().unwrap());
    assert!(driver.ring.pop_used().is_some());
}

/// The device that served the vring before can have ended between the used buffer and the call.
#[test]
fn every_start_calls_once_though_no_buffer_becomes_used() {
    let (device, _starts) = Echo::new(1, Mode::Echo);
    let mut runner = Runner::new(device, RingOptions::default());
    let mut driver = Driver::alone();
    let counter = Arc::new(Counter(AtomicU32::new(0), Some(driver.call.clone())));
    driver.vring.call = Some(counter.clone());
    for starts in 1..=3 {
        runner.start(driver.vring.clone()).unwrap();
        wait(&driver.call);
        runner.stop([0]).unwrap();
        assert_eq!(counter.0.load(Ordering::SeqCst), starts);
    }
}

/// Firmware polls its rings, and may have no handler for a level-triggered interrupt.
#[test]
fn a_start_does_not_call_a_driver_that_asks_for_no_calls() {
    let (device, _starts) = Echo::new(1, Mode::Echo);
    let mut runner = Runner::new(device, RingOptions::default());
    let mut driver = Driver::alone();
    driver.ring.set_avail_flags(1);
    runner.start(driver.vring.clone()).unwrap();
    driver.add();
    let end = Instant::now() + DEADLINE;
    while driver.ring.pop_used().is_none() {
        assert!(Instant::now() < end, "no answer");
        thread::yield_now();
    }
    runner.stop([0]).unwrap();
    assert!(!driver.call.take().unwrap());
}

#[test]
fn a_call_that_blocks_is_given_up_and_its_queue_goes_on() {
    let (device, _starts) = Echo::new(1, Mode::Echo);
    let mut runner = Runner::new(device, RingOptions::default());
    let full = Arc::new(SharedEventFd::new().unwrap());
    rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    rustix::io::ioctl_fionbio(&full, false).unwrap();
    let blocking = Arc::new(Counter(AtomicU32::new(0), Some(full)));
    let mut driver = Driver::alone();
    driver.vring.call = Some(blocking.clone());
    runner.start(driver.vring.clone()).unwrap();
    let end = Instant::now() + DEADLINE;
    for _ in 0..3 {
        driver.add();
        while driver.ring.pop_used().is_none() {
            assert!(Instant::now() < end, "no answer");
            thread::yield_now();
        }
    }
    runner.set_call(0, Some(driver.call.clone()));
    driver.add();
    wait(&driver.call);
    runner.stop([0]).unwrap();
    assert_eq!(blocking.0.load(Ordering::SeqCst), 1);
}
