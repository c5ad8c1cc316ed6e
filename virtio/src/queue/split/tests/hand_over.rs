//! The hand-over between a split queue and a driver when one side goes to sleep.

use super::*;
use crate::queue::tests::hand_over::{Driver, ROUNDS, misses};

const SIZE: u16 = 8;

fn queue() -> (Arc<GuestMemory>, VringLayout, SplitQueue) {
    let memory = memory(0x10000);
    let layout = DriverRing::new(memory.clone(), 0x1000, SIZE).layout();
    let features = Features {
        indirect: false,
        event_idx: true,
    };
    let queue = SplitQueue::new(&memory, layout, features, 0).unwrap();
    (memory, layout, queue)
}

#[test]
fn a_request_is_seen_or_kicked_for_when_it_comes_while_the_device_goes_to_sleep() {
    let (memory, layout, mut queue) = queue();
    let driver = Driver {
        store: layout.avail.0 + 2,
        load: layout.used.0 + 4 + 8 * u64::from(SIZE),
        stored: |round| round + 1,
    };
    let go_to_sleep = |queue: &mut SplitQueue| {
        let seen = queue.enable_kick().unwrap();
        queue.advance();
        queue.avail_index = queue.next_avail;
        seen
    };
    let misses = misses(&mut queue, &memory, &driver, |round| round, go_to_sleep);
    assert_eq!(misses, 0, "of {ROUNDS} requests");
}

#[test]
fn a_used_chain_is_seen_or_called_for_when_it_comes_while_the_driver_goes_to_sleep() {
    let (memory, layout, mut queue) = queue();
    let driver = Driver {
        store: layout.avail.0 + 4 + 2 * u64::from(SIZE),
        load: layout.used.0 + 2,
        stored: |round| round,
    };
    let publish = |queue: &mut SplitQueue| {
        let called = queue.needs_call().unwrap();
        queue.push_used(0, 0).unwrap();
        called
    };
    queue.push_used(0, 0).unwrap();
    let misses = misses(&mut queue, &memory, &driver, |round| round + 1, publish);
    assert_eq!(misses, 0, "of {ROUNDS} used chains");
}
