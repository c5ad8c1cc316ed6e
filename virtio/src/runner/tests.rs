use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ipc::{Interest, SharedEventFd, poll};

use super::*;
use crate::test_utils::{DriverRing, RestlessKick, memory};
use crate::{Chain, DeviceKind, GuestMemory};
use crate::{ServeError, ServedQueue, Wake};

mod calls;

const DEADLINE: Duration = Duration::from_secs(20);
const RING_SIZE: u16 = 16;
const RING_AREA: u64 = 0x1000;

/// The behaviour of the device [`Echo`].
#[derive(Clone, Copy)]
enum Mode {
    /// Gives each request back at once.
    Echo,
    /// Waits for the stop request and then for this time, and only then gives a request back.
    Slow(Duration),
    Fail,
    Panic,
}

/// A device that gives requests back or fails, depending on its mode.
struct Echo {
    queues: u16,
    mode: Mode,
    served: AtomicU64,
    threads: Mutex<Vec<thread::ThreadId>>,
    /// Receives the index of each queue that starts.
    started: Mutex<Sender<u16>>,
}

impl Echo {
    fn new(queues: u16, mode: Mode) -> (Arc<Self>, Receiver<u16>) {
        let (sender, receiver) = channel();
        let device = Self {
            queues,
            mode,
            served: AtomicU64::new(0),
            threads: Mutex::default(),
            started: Mutex::new(sender),
        };
        (Arc::new(device), receiver)
    }

    fn answer(&self, wake: &Wake) -> Result<(), ServeError> {
        match self.mode {
            Mode::Echo => Ok(()),
            Mode::Slow(time) => {
                poll([Interest::readable(wake)], Some(DEADLINE))?;
                let end = Instant::now() + time;
                while let Some(left) = end.checked_duration_since(Instant::now()) {
                    poll([Interest::Nothing], Some(left))?;
                }
                Ok(())
            }
            Mode::Fail => Err(io::Error::other("as the test wants it").into()),
            Mode::Panic => panic!("as the test wants it"),
        }
    }
}

impl Device for Echo {
    fn kind(&self) -> DeviceKind {
        DeviceKind {
            id: 42,
            class: 0xff_0000,
        }
    }

    fn features(&self) -> u64 {
        1
    }

    fn queue_count(&self) -> u16 {
        self.queues
    }

    fn serve(&self, queue: &mut ServedQueue, wake: &Wake) -> Result<(), ServeError> {
        self.threads.lock().unwrap().push(thread::current().id());
        self.started.lock().unwrap().send(queue.index).unwrap();
        let mut chain = Chain::default();
        while queue.next(&mut chain, wake)? {
            self.answer(wake)?;
            queue.give_back(&chain, 0)?;
            self.served.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// The driver of one queue.
struct Driver {
    ring: DriverRing,
    vring: Vring,
    kick: Arc<SharedEventFd>,
    call: Arc<SharedEventFd>,
    error: Arc<SharedEventFd>,
}

impl Driver {
    fn new(memory: &Arc<GuestMemory>, index: u16) -> Self {
        let base = RING_AREA * (1 + u64::from(index));
        let ring = DriverRing::new(memory.clone(), base, RING_SIZE);
        let eventfd = || Arc::new(SharedEventFd::new().unwrap());
        let (kick, call, error) = (eventfd(), eventfd(), eventfd());
        let vring = Vring {
            index,
            features: 0,
            layout: ring.layout(),
            next_avail: 0,
            memory: memory.clone(),
            kick: Some(kick.clone()),
            call: Some(call.clone()),
            error: Some(error.clone()),
        };
        Self {
            ring,
            vring,
            kick,
            call,
            error,
        }
    }

    fn alone() -> Self {
        Self::new(&memory(4 * RING_AREA), 0)
    }

    fn add(&mut self) {
        self.ring.add(&[(0, 1, true)]);
        self.kick.signal().unwrap();
    }

    fn wait_used(&mut self) {
        let end = Instant::now() + DEADLINE;
        while self.ring.pop_used().is_none() {
            assert!(Instant::now() < end, "no answer");
            wait(&self.call);
        }
    }
}

fn wait(eventfd: &SharedEventFd) {
    let [ready] = poll([Interest::readable(eventfd)], Some(DEADLINE)).unwrap();
    assert!(ready, "deadline");
    eventfd.take().unwrap();
}

#[test]
fn a_restarted_queue_goes_on_where_it_stopped() {
    let (device, _starts) = Echo::new(1, Mode::Echo);
    let mut runner = Runner::new(device, RingOptions::default());
    let mut driver = Driver::alone();
    assert_eq!(runner.next_avail(0), None);
    for round in 1..=3 {
        runner.start(driver.vring.clone()).unwrap();
        assert!(runner.is_started(0));
        driver.add();
        driver.wait_used();
        runner.stop([0]).unwrap();
        assert!(!runner.is_started(0));
        driver.vring.next_avail = runner.next_avail(0).unwrap();
        assert_eq!(driver.vring.next_avail, round);
    }
}

#[test]
fn a_queue_keeps_its_thread_and_leaves_the_memory_when_stopped() {
    let (device, starts) = Echo::new(1, Mode::Echo);
    let mut runner = Runner::new(device.clone(), RingOptions::default());
    let driver = Driver::alone();
    let users = Arc::strong_count(&driver.vring.memory);
    for _ in 0..3 {
        runner.start(driver.vring.clone()).unwrap();
        starts.recv_timeout(DEADLINE).unwrap();
        runner.stop_all().unwrap();
        assert_eq!(Arc::strong_count(&driver.vring.memory), users);
    }
    let threads = device.threads.lock().unwrap();
    assert!(threads.iter().all(|thread| *thread == threads[0]));
}

#[test]
fn dropping_the_runner_ends_its_threads() {
    let (device, starts) = Echo::new(2, Mode::Echo);
    let mut runner = Runner::new(device.clone(), RingOptions::default());
    let memory = memory(4 * RING_AREA);
    for index in 0..2 {
        runner.start(Driver::new(&memory, index).vring).unwrap();
        starts.recv_timeout(DEADLINE).unwrap();
    }
    drop(runner);
    let end = Instant::now() + DEADLINE;
    // The loop waits for the end of all threads. Each thread holds a reference to the device until
    // the thread ends.
    while Arc::strong_count(&device) > 1 {
        assert!(Instant::now() < end, "a thread is left");
        thread::yield_now();
    }
}

#[test]
fn queues_that_are_missing_running_or_outside_of_memory_are_not_started() {
    let (device, _starts) = Echo::new(1, Mode::Echo);
    let mut runner = Runner::new(device, RingOptions::default());
    let driver = Driver::alone();
    let mut vring = driver.vring.clone();
    vring.index = 1;
    assert!(matches!(
        runner.start(vring),
        Err(StartError::NoSuchQueue(1))
    ));
    let mut vring = driver.vring.clone();
    vring.layout.size = 3;
    assert!(matches!(runner.start(vring), Err(StartError::Queue(_))));
    assert!(!runner.is_started(0));
    runner.start(driver.vring.clone()).unwrap();
    let twice = runner.start(driver.vring.clone());
    assert!(matches!(twice, Err(StartError::Running(0))));
}

#[test]
fn failures_and_panics_are_reported_to_the_carrier() {
    for mode in [Mode::Fail, Mode::Panic] {
        let (device, _starts) = Echo::new(1, mode);
        let mut runner = Runner::new(device, RingOptions::default());
        let mut driver = Driver::alone();
        runner.start(driver.vring.clone()).unwrap();
        assert!(!runner.has_failed(0));
        driver.add();
        wait(&driver.error);
        assert!(runner.has_failed(0), "known as soon as it is told");
        runner.stop([0]).unwrap();
        assert_eq!(runner.next_avail(0), Some(1));
        // A failed queue can be started again.
        runner.start(driver.vring.clone()).unwrap();
    }
}

#[test]
fn sixty_four_busy_queues_stop_in_the_time_of_one() {
    const SLOW: Duration = Duration::from_millis(300);
    let (device, starts) = Echo::new(64, Mode::Slow(SLOW));
    let mut runner = Runner::new(device.clone(), RingOptions::default());
    let memory = memory(66 * RING_AREA);
    let mut drivers: Vec<_> = (0..64).map(|index| Driver::new(&memory, index)).collect();
    for driver in &mut drivers {
        driver.add();
        runner.start(driver.vring.clone()).unwrap();
    }
    for _ in &drivers {
        starts.recv_timeout(DEADLINE).unwrap();
    }
    let begin = Instant::now();
    runner.stop_all().unwrap();
    // If the runner waited for the queues one after another, the 64 stops would take 19 seconds.
    assert!(begin.elapsed() < 10 * SLOW, "{:?}", begin.elapsed());
}

#[test]
fn a_stop_fails_at_its_deadline_and_can_be_repeated() {
    let (device, starts) = Echo::new(2, Mode::Slow(Duration::from_secs(2)));
    let patience = Duration::from_millis(100);
    let mut runner = Runner::new(device, RingOptions::default()).with_stop_deadline(patience);
    let memory = memory(4 * RING_AREA);
    let (mut busy, idle) = (Driver::new(&memory, 0), Driver::new(&memory, 1));
    busy.add();
    for driver in [&busy, &idle] {
        runner.start(driver.vring.clone()).unwrap();
        starts.recv_timeout(DEADLINE).unwrap();
    }
    let error = runner.stop_all().unwrap_err();
    assert_eq!((error.queue, error.waited), (0, patience));
    assert!(runner.is_started(0) && !runner.is_started(1));
    assert!(matches!(
        runner.start(busy.vring.clone()),
        Err(StartError::Running(0))
    ));
    // The slow request ends after 2 seconds, and a second stop then succeeds.
    let mut runner = runner.with_stop_deadline(DEADLINE);
    runner.stop_all().unwrap();
    assert!(!runner.is_started(0));
}

#[test]
fn a_kick_that_stays_readable_costs_64_wake_ups_for_each_request() {
    let (device, _starts) = Echo::new(1, Mode::Echo);
    let mut runner = Runner::new(device, RingOptions::default());
    let mut driver = Driver::alone();
    let kick = RestlessKick::new();
    driver.vring.kick = Some(kick.eventfd().clone());
    runner.start(driver.vring.clone()).unwrap();
    for requests in 1..=3 {
        driver.ring.add(&[(0, 1, true)]);
        driver.wait_used();
        // Nothing ends this wait early. A queue that does not make pauses takes many signals
        // meanwhile.
        poll([Interest::Nothing], Some(Duration::from_millis(150))).unwrap();
        // The queue takes at most 64 signals before the first request, and at most 64 more after
        // each request.
        let taken = kick.taken();
        assert!((64..=64 * (requests + 1)).contains(&taken), "{taken}");
    }
}

#[test]
fn a_driver_whose_requests_are_not_seen_is_reported_once() {
    let (device, _starts) = Echo::new(2, Mode::Echo);
    let (sender, hints) = channel();
    let sender = Mutex::new(sender);
    let hint = move |event: NoRequests| sender.lock().unwrap().send(event.queue).unwrap();
    let mut runner = Runner::new(device, RingOptions::default()).with_hint(hint);
    let memory = memory(4 * RING_AREA);
    let mut drivers = [Driver::new(&memory, 0), Driver::new(&memory, 1)];
    for driver in &drivers {
        runner.start(driver.vring.clone()).unwrap();
    }
    // The driver kicks, but its requests are in memory that is not shared.
    drivers[1].kick.signal().unwrap();
    assert_eq!(hints.recv_timeout(DEADLINE), Ok(1));
    // The next driver kicks one queue without a request, but has made a request on the other queue.
    runner.stop_all().unwrap();
    runner.forget_driver();
    drivers[0].add();
    for driver in &drivers {
        runner.start(driver.vring.clone()).unwrap();
    }
    drivers[0].wait_used();
    drivers[1].kick.signal().unwrap();
    let quiet = hints.recv_timeout(Duration::from_millis(1200));
    assert!(quiet.is_err(), "{quiet:?}");
}

#[test]
fn the_runner_adds_the_ring_features_to_those_of_the_device() {
    let (device, _starts) = Echo::new(3, Mode::Echo);
    for (packed, in_order) in [(false, false), (true, false), (false, true)] {
        let rings = RingOptions {
            max_size: 64,
            packed,
            in_order,
        };
        let runner = Runner::new(device.clone(), rings);
        let features = runner.features();
        assert_eq!(features & PACKED != 0, packed);
        assert_eq!(features & IN_ORDER != 0, in_order);
        assert_eq!(features & 1, 1, "the device's own");
        assert_eq!(features & RING_FEATURES, RING_FEATURES);
        assert_ne!(features & 1 << VIRTIO_F_VERSION_1, 0);
        assert_eq!((runner.queue_count(), runner.max_queue_size()), (3, 64));
    }
}
