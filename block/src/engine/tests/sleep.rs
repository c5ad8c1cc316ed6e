//! Tests of the sleep of an engine.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::super::wakers::POLL_INTERVAL;
use super::*;

fn is_set(eventfd: &SharedEventFd) -> bool {
    ipc::poll([ipc::Interest::readable(eventfd)], Some(Duration::ZERO)).unwrap()[0]
}

#[test]
fn each_kick_wakes_the_engine_and_is_reset() {
    for kind in KINDS {
        let rig = Rig::new();
        let mut ring = Ring::default();
        let mut engine = rig.engine(kind, false, true, &mut ring);
        for _ in 0..3 {
            rig.kick.signal().unwrap();
            // A kick may cause two wake-ups: one when the kick comes, and one when the kick has
            // been reset.
            while is_set(&rig.kick) {
                engine.wait(None).unwrap();
                assert!(engine.next_completion().is_none());
            }
        }
    }
}

#[test]
fn the_stop_eventfd_wakes_the_engine() {
    for kind in KINDS {
        for kick in [false, true] {
            let rig = Rig::new();
            let mut ring = Ring::default();
            let mut engine = rig.engine(kind, false, kick, &mut ring);
            rig.stop.signal().unwrap();
            engine.wait(None).unwrap();
        }
    }
}

#[test]
fn the_engine_sleeps_until_an_event_comes() {
    for kind in KINDS {
        let rig = Rig::new();
        let mut ring = Ring::default();
        let mut engine = rig.engine(kind, false, true, &mut ring);
        // First a kick wakes the engine, which resets the kick.
        rig.kick.signal().unwrap();
        while is_set(&rig.kick) {
            engine.wait(None).unwrap();
        }
        assert!(engine.next_completion().is_none());
        let written = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (stop, written) = (rig.stop.clone(), written.clone());
            move || {
                // The test checks only the order of the two events. The sleep of this thread makes
                // it likely that the test finds an engine that does not sleep.
                std::thread::sleep(Duration::from_millis(20));
                written.store(true, Ordering::SeqCst);
                stop.signal().unwrap();
            }
        });
        // The kick and its reset are two completions, which may wake the engine one after the
        // other.
        let mut wake_ups = 0;
        while !written.load(Ordering::SeqCst) {
            engine.wait(None).unwrap();
            assert!(engine.next_completion().is_none());
            wake_ups += 1;
        }
        thread.join().unwrap();
        assert!(wake_ups <= 2, "{kind:?} does not sleep");
    }
}

#[test]
fn without_a_kick_the_engine_sleeps_for_the_polling_interval() {
    for kind in KINDS {
        let rig = Rig::new();
        let mut ring = Ring::default();
        let mut engine = rig.engine(kind, false, false, &mut ring);
        let start = Instant::now();
        engine.wait(None).unwrap();
        assert!(
            start.elapsed() >= POLL_INTERVAL / 2,
            "the engine does not sleep"
        );
    }
}
