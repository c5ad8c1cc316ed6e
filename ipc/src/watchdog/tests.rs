use super::*;
use std::sync::Barrier;
use std::time::Instant;

/// A watchdog that watches only this thread, and the number of the thread's writes.
fn watched() -> (Watchdog, Arc<Writes>) {
    interrupt::install_handler().unwrap();
    let watchdog = Watchdog::new();
    let writes = watchdog.watch_this_thread();
    (watchdog, writes)
}

#[test]
fn the_watchdog_stays_awake_while_writes_begin_end_or_last() {
    let (watchdog, writes) = watched();
    assert!(!watchdog.look(), "no write yet");
    writes.begin();
    assert!(watchdog.look(), "a write has begun");
    assert!(watchdog.look(), "the write lasts");
    writes.end();
    assert!(watchdog.look(), "the write has ended");
    assert!(!watchdog.look());
    writes.begin();
    writes.end();
    assert!(watchdog.look(), "a whole write between two looks");
    assert!(!watchdog.look());
}

#[test]
fn a_thread_leaves_the_list_when_it_ends() {
    let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap();
    let writes = thread::spawn(move || {
        write(&eventfd, &1u64.to_ne_bytes()).unwrap();
        ENTRY.with(|entry| entry.get().unwrap().0.clone())
    });
    let writes = writes.join().unwrap();
    let threads = WATCHDOG.lock();
    assert!(
        threads
            .iter()
            .all(|other| !Arc::ptr_eq(&other.writes, &writes))
    );
}

/// Whether the watchdog's thread, which is the calling thread, was woken. Waits for a second if it
/// was not.
fn is_woken() -> bool {
    let limit = Duration::from_secs(1);
    let start = Instant::now();
    thread::park_timeout(limit);
    start.elapsed() < limit
}

#[test]
fn a_write_that_begins_while_the_watchdog_goes_to_sleep_is_seen_or_wakes_it() {
    let (watchdog, writes) = watched();
    watchdog.thread.set(thread::current()).unwrap();
    let (barrier, missed) = (Barrier::new(2), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !missed.load(Ordering::Relaxed) && writes.number() < 4000 {
                barrier.wait();
                writes.begin();
                watchdog.wake();
                barrier.wait();
                writes.end();
                barrier.wait();
            }
        });
        while !missed.load(Ordering::Relaxed) && writes.number() < 4000 {
            barrier.wait();
            let asleep = watchdog.goes_to_sleep();
            barrier.wait();
            missed.store(asleep && !is_woken(), Ordering::Relaxed);
            watchdog.asleep.store(false, Ordering::Relaxed);
            // The next round begins without a wake-up and without an unseen write.
            thread::park_timeout(Duration::ZERO);
            barrier.wait();
            while watchdog.look() {}
        }
    });
    assert!(!missed.into_inner(), "write {}", writes.number() / 2);
}

#[test]
fn the_watchdog_asks_to_be_woken_before_it_looks_for_the_last_time() {
    let (watchdog, writes) = watched();
    thread::scope(|scope| {
        // The watchdog cannot look while this thread has the lock.
        let threads = watchdog.lock();
        let sleeper = scope.spawn(|| watchdog.goes_to_sleep());
        let deadline = Instant::now() + Duration::from_secs(5);
        while !watchdog.asleep.load(Ordering::SeqCst) && Instant::now() < deadline {
            thread::yield_now();
        }
        let asks = watchdog.asleep.load(Ordering::SeqCst);
        writes.begin();
        drop(threads);
        assert!(asks, "the watchdog looks first");
        assert!(!sleeper.join().unwrap(), "the write is not seen");
    });
}
