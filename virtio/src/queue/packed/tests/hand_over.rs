//! The hand-over between a packed queue and a driver when one side goes to sleep. The ring has one
//! descriptor, so each round is one lap, and the wrap counter changes with each round.

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::queue::tests::hand_over::{Driver, ROUNDS, misses};
use crate::test_utils::{AVAIL, EVENT_DESC, PackedDriverRing, USED, memory};

/// The position of the only descriptor in a round.
fn position_in(round: u16) -> u16 {
    position(round.into(), 1).encode()
}

fn queue() -> (Arc<GuestMemory>, VringLayout, PackedQueue) {
    let memory = memory(0x10000);
    let layout = PackedDriverRing::new(memory.clone(), 0x1000, 1).layout();
    let features = Features {
        indirect: false,
        event_idx: true,
    };
    let queue = PackedQueue::new(&memory, layout, features, position_in(0)).unwrap();
    (memory, layout, queue)
}

#[test]
fn a_request_is_seen_or_kicked_for_when_it_comes_while_the_device_goes_to_sleep() {
    let (memory, layout, mut queue) = queue();
    let driver = Driver {
        store: layout.desc.0 + 14,
        load: layout.used.0,
        stored: |round| if round % 2 == 0 { AVAIL } else { USED },
    };
    let go_to_sleep = |queue: &mut PackedQueue| {
        let seen = queue.enable_kick().unwrap();
        queue.next_avail = queue.next_avail.after(1, 1);
        seen
    };
    let misses = misses(&mut queue, &memory, &driver, position_in, go_to_sleep);
    assert_eq!(misses, 0, "of {ROUNDS} requests");
}

#[test]
fn a_used_chain_is_seen_or_called_for_when_it_comes_while_the_driver_goes_to_sleep() {
    let (memory, layout, mut queue) = queue();
    let flags = GuestAddress(layout.avail.0 + 2);
    memory.write_obj(EVENT_DESC.to_le(), flags).unwrap();
    let driver = Driver {
        store: layout.avail.0,
        load: layout.desc.0 + 14,
        stored: position_in,
    };
    let used = |round| if round % 2 == 0 { AVAIL | USED } else { 0 };
    let publish = |queue: &mut PackedQueue| {
        (queue.lengths[0], queue.taken) = (1, 1);
        queue.push_used(0, 0).unwrap();
        queue.needs_call().unwrap()
    };
    let misses = misses(&mut queue, &memory, &driver, used, publish);
    assert_eq!(misses, 0, "of {ROUNDS} used chains");
}
