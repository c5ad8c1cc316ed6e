//! Tests of the sleep of an engine.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::*;
use virtio::test_utils::RestlessKick;

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
            // A kick may wake the engine twice: when the kick eventfd is written, and when the
            // eventfd has been reset.
            while is_set(&rig.kick) {
                engine.wait(for_kick(None)).unwrap();
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
            engine.wait(for_kick(None)).unwrap();
        }
    }
}

#[test]
fn the_engine_sleeps_until_an_event_comes() {
    for kind in KINDS {
        let rig = Rig::new();
        let mut ring = Ring::default();
        let mut engine = rig.engine(kind, false, true, &mut ring);
        // The first kick wakes the engine, and the engine resets the kick eventfd.
        rig.kick.signal().unwrap();
        while is_set(&rig.kick) {
            engine.wait(for_kick(None)).unwrap();
        }
        assert!(engine.next_completion().is_none());
        let written = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (stop, written) = (rig.stop.clone(), written.clone());
            move || {
                // The test checks only the order of the two events. The pause of this thread makes
                // it likely that the test detects an engine that does not sleep.
                std::thread::sleep(Duration::from_millis(20));
                written.store(true, Ordering::SeqCst);
                stop.signal().unwrap();
            }
        });
        // The kick and the reset of the kick eventfd are two completions, and each of them may wake
        // the engine.
        let mut wake_ups = 0;
        while !written.load(Ordering::SeqCst) {
            engine.wait(for_kick(None)).unwrap();
            assert!(engine.next_completion().is_none());
            wake_ups += 1;
        }
        thread.join().unwrap();
        assert!(wake_ups <= 2, "{kind:?} does not sleep");
    }
}

#[test]
fn the_stop_eventfd_ends_only_one_sleep() {
    const LIMIT: Duration = Duration::from_millis(20);
    for kind in KINDS {
        let rig = Rig::new();
        let mut ring = Ring::default();
        let mut engine = rig.engine(kind, false, true, &mut ring);
        rig.stop.signal().unwrap();
        engine.wait(Sleep::without_kicks(None)).unwrap();
        assert!(engine.next_completion().is_none());
        // A worker that stops waits for the requests in flight, and must not spin meanwhile.
        let start = Instant::now();
        engine.wait(Sleep::without_kicks(Some(LIMIT))).unwrap();
        assert!(start.elapsed() >= LIMIT / 2, "{kind:?} does not sleep");
    }
}

#[test]
fn a_kick_ends_only_the_sleeps_that_wait_for_kicks() {
    for kind in KINDS {
        let kick = RestlessKick::new();
        let mut rig = Rig::new();
        rig.kick = kick.eventfd().clone();
        let mut ring = Ring::default();
        let mut engine = rig.engine(kind, false, true, &mut ring);
        for _ in 0..5 {
            let limit = Some(Duration::from_millis(1));
            engine.wait(Sleep::without_kicks(limit)).unwrap();
            assert!(engine.next_completion().is_none());
        }
        assert_eq!(kick.taken(), 0, "{kind:?}");
        engine.wait(for_kick(None)).unwrap();
        assert!(kick.taken() > 0, "{kind:?}");
    }
}

#[test]
fn an_engine_without_a_kick_sleeps_for_the_given_time() {
    const LIMIT: Duration = Duration::from_millis(20);
    for kind in KINDS {
        let rig = Rig::new();
        let mut ring = Ring::default();
        let mut engine = rig.engine(kind, false, false, &mut ring);
        let start = Instant::now();
        engine.wait(for_kick(Some(LIMIT))).unwrap();
        assert!(start.elapsed() >= LIMIT / 2, "{kind:?} does not sleep");
    }
}
