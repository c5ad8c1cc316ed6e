use super::*;

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
