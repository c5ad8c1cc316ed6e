//! Tests of packed virtqueues.

use super::*;
use crate::test_utils::{
    AVAIL, EVENT_DESC, EVENT_DISABLE, EVENT_ENABLE, PackedDriverRing, USED, swapped_pages,
};
use crate::vring::first_position;
use std::collections::VecDeque;

/// The size of the driver's memory in bytes.
const SIZE: u64 = 0x10000;

const BUFFER: (u64, u32, bool) = (0x4000, 16, false);

fn pair(size: u16, features: u64) -> (PackedDriverRing, Queue) {
    pair_in(memory(SIZE), size, features)
}

fn pair_in(memory: Arc<GuestMemory>, size: u16, features: u64) -> (PackedDriverRing, Queue) {
    let ring = PackedDriverRing::new(memory.clone(), 0x1000, size);
    let layout = ring.layout();
    let queue = Queue::new(memory, layout, features, first_position(true)).unwrap();
    (ring, queue)
}

fn pop(queue: &mut Queue) -> Option<(u16, u64, u64)> {
    let mut chain = Chain::default();
    let popped = queue.pop(&mut chain).unwrap();
    popped.then(|| (chain.head, chain.readable.len(), chain.writable.len()))
}

#[test]
fn chains_of_any_length_go_round_in_rings_of_any_size() {
    for size in [1, 2, 3, 4, 5, 7] {
        let (mut ring, mut queue) = pair(size, 0);
        for round in 0..50u16 {
            let length = 1 + round % size.min(3);
            let mut buffers = vec![BUFFER; length.into()];
            buffers[usize::from(length) - 1] = (0x5000, 100, true);
            assert!(!queue.has_requests().unwrap());
            assert_eq!(pop(&mut queue), None);
            let id = ring.add(&buffers);
            assert!(queue.has_requests().unwrap());
            let bytes = u64::from(length - 1) * 16;
            assert_eq!(pop(&mut queue), Some((id, bytes, 100)), "size {size}");
            assert_eq!(queue.next_avail(), ring.position());
            assert_eq!(ring.pop_used(), None);
            queue.push_used(id, round.into()).unwrap();
            queue.publish().unwrap();
            assert_eq!(ring.pop_used(), Some((id.into(), round.into())));
        }
    }
}

#[test]
fn chains_are_given_back_in_any_order() {
    let (mut ring, mut queue) = pair(8, 0);
    for _ in 0..20 {
        let ids = [1, 3, 2].map(|length| ring.add(&vec![BUFFER; length]));
        for id in ids {
            assert_eq!(pop(&mut queue).unwrap().0, id);
        }
        for id in [ids[2], ids[0], ids[1]] {
            queue.push_used(id, 0).unwrap();
            assert_eq!(ring.pop_used(), Some((id.into(), 0)));
        }
    }
}

#[test]
fn all_descriptors_of_an_indirect_table_belong_to_the_chain() {
    let (mut ring, mut queue) = pair(2, RING_FEATURES);
    for _ in 0..5 {
        let buffers = [BUFFER, BUFFER, (0x5000, 3, true), (0x5000, 4, true)];
        let id = ring.add_indirect(0x7000, &buffers);
        assert_eq!(pop(&mut queue), Some((id, 32, 7)));
        queue.push_used(id, 7).unwrap();
        assert_eq!(ring.pop_used(), Some((id.into(), 7)));
    }
}

#[test]
fn indirect_tables_that_break_the_rules_are_refused() {
    let cases = [
        (0, 16, INDIRECT, "feature not negotiated"),
        (RING_FEATURES, 0, INDIRECT, "empty"),
        (RING_FEATURES, 24, INDIRECT, "half a descriptor"),
        (RING_FEATURES, 16, INDIRECT | NEXT, "next beside indirect"),
        (RING_FEATURES, 0xffff_fff0, INDIRECT, "endless"),
        (RING_FEATURES, 48, INDIRECT, "nested"),
    ];
    for (features, len, flags, why) in cases {
        let (mut ring, mut queue) = pair(4, features);
        ring.write_descriptor(GuestAddress(0x7000), 2, (0x7000, 16, 0, INDIRECT));
        ring.add_entries(&[(0x7000, len, 0, flags)]);
        let error = pop_error(&mut queue);
        let refused = matches!(
            error,
            QueueError::BadIndirect | QueueError::IndirectLength(_) | QueueError::ChainTooLong(_)
        );
        assert!(refused, "{why}: {error}");
    }
    let (mut ring, mut queue) = pair(4, RING_FEATURES);
    ring.add_entries(&[(0x4000, 1, 0, NEXT), (0x7000, 16, 0, INDIRECT)]);
    assert!(matches!(pop_error(&mut queue), QueueError::BadIndirect));
}

#[test]
fn chains_longer_than_the_free_part_of_the_ring_are_refused() {
    let (mut ring, mut queue) = pair(4, 0);
    ring.add_entries(&[(0x4000, 1, 0, NEXT); 4]);
    assert!(matches!(pop_error(&mut queue), QueueError::ChainTooLong(4)));

    // The second chain has one descriptor more than the ring has left.
    let (mut ring, mut queue) = pair(4, 0);
    ring.add(&[BUFFER; 2]);
    pop(&mut queue).unwrap();
    ring.add_as(1, &[BUFFER; 3]);
    assert!(matches!(pop_error(&mut queue), QueueError::ChainTooLong(2)));

    let (mut ring, mut queue) = pair(1, 0);
    ring.add_as(0, &[BUFFER]);
    pop(&mut queue).unwrap();
    ring.add_as(0, &[BUFFER]);
    assert!(matches!(pop_error(&mut queue), QueueError::ChainTooLong(0)));
}

#[test]
fn identities_outside_the_ring_or_in_flight_are_refused() {
    let (mut ring, mut queue) = pair(4, 0);
    ring.add_as(4, &[BUFFER]);
    assert!(matches!(pop_error(&mut queue), QueueError::BufferId(4)));
    assert_eq!(queue.next_avail(), 0x8000, "it stays untaken");

    let (mut ring, mut queue) = pair(4, 0);
    ring.add_as(2, &[BUFFER]);
    pop(&mut queue).unwrap();
    ring.add_as(2, &[BUFFER]);
    assert!(matches!(pop_error(&mut queue), QueueError::InFlight(2)));
}

#[test]
fn a_readable_buffer_after_a_writable_one_is_refused() {
    let (mut ring, mut queue) = pair(4, 0);
    ring.add(&[(0x4000, 1, true), BUFFER]);
    assert!(matches!(pop_error(&mut queue), QueueError::Order));
}

#[test]
fn layouts_and_positions_that_do_not_fit_are_refused() {
    let memory = memory(0x10000);
    let good = PackedDriverRing::new(memory.clone(), 0x1000, 7).layout();
    let addr = GuestAddress;
    let bad = [
        VringLayout { size: 0, ..good },
        VringLayout {
            size: 32769,
            desc: addr(0),
            ..good
        },
        VringLayout {
            desc: addr(0x1008),
            ..good
        },
        VringLayout {
            avail: addr(0x1072),
            ..good
        },
        VringLayout {
            used: addr(0x1076),
            ..good
        },
        VringLayout {
            desc: addr(0xffa0),
            ..good
        },
        VringLayout {
            used: addr(0x1_0000),
            ..good
        },
    ];
    for layout in bad {
        let result = Queue::new(memory.clone(), layout, 0, 0x8000);
        let refused = matches!(result, Err(QueueError::BadLayout(_)));
        assert!(refused, "{layout:?}");
    }
    for (position, fits) in [(0, true), (6, true), (0x8006, true), (7, false)] {
        let result = Queue::new(memory.clone(), good, 0, position);
        assert_eq!(result.is_ok(), fits, "{position:#x}");
    }
}

#[test]
fn a_queue_goes_on_where_another_stopped() {
    let (mut ring, mut queue) = pair(5, 0);
    for _ in 0..30 {
        for length in [2, 1] {
            let id = ring.add(&vec![BUFFER; length]);
            assert_eq!(pop(&mut queue).unwrap().0, id);
            queue.push_used(id, 1).unwrap();
            assert_eq!(ring.pop_used(), Some((id.into(), 1)));
        }
        let (memory, base) = (queue.memory().clone(), queue.next_avail());
        queue = Queue::new(memory, ring.layout(), 0, base).unwrap();
    }
}

#[test]
fn event_flags_suppress_calls_and_kicks() {
    for features in [0, EVENT_IDX] {
        let (mut ring, mut queue) = pair(4, features);
        assert!(!queue.needs_call().unwrap(), "there is no news");
        for (flags, expected) in [(EVENT_ENABLE, true), (EVENT_DISABLE, false), (3, true)] {
            ring.set_event(flags, 0x8000);
            let id = ring.add(&[BUFFER]);
            pop(&mut queue).unwrap();
            queue.push_used(id, 0).unwrap();
            assert_eq!(queue.needs_call().unwrap(), expected);
            ring.pop_used().unwrap();
        }
        queue.disable_kick().unwrap();
        assert_eq!(ring.device_event().0, EVENT_DISABLE);
        assert!(!ring.wants_kick());
        ring.add(&[BUFFER]);
        let more = queue.enable_kick().unwrap();
        assert!(more, "a request came while kicks were off");
        let expected = match features {
            0 => (EVENT_ENABLE, 0),
            _ => (EVENT_DESC, queue.next_avail()),
        };
        assert_eq!(ring.device_event(), expected);
        assert!(ring.wants_kick());
    }
}

#[test]
fn without_event_idx_a_position_asks_for_each_call() {
    let (mut ring, mut queue) = pair(4, 0);
    ring.set_event(EVENT_DESC, 0x8003);
    let id = ring.add(&[BUFFER]);
    pop(&mut queue).unwrap();
    queue.push_used(id, 0).unwrap();
    assert!(queue.needs_call().unwrap());
}

/// The next action of the driver or of the device.
#[derive(Clone, Debug)]
enum Action {
    /// The driver adds a chain with this number of buffers. The descriptors are in an indirect
    /// table if the flag is true.
    Add(u16, bool),
    Pop,
    /// The device gives a chain in flight back. The first number selects the chain, and the second
    /// number is the number of written bytes.
    Push(usize, u32),
    /// The driver asks for a call when the device has used this number of further descriptors.
    CallAt(u16),
    DecideCall,
    TakeOver,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (1..5u16, any::<bool>()).prop_map(|(length, table)| Action::Add(length, table)),
        6 => Just(Action::Pop),
        6 => (any::<usize>(), any::<u32>()).prop_map(|(n, written)| Action::Push(n, written)),
        2 => (0..9u16).prop_map(Action::CallAt),
        3 => Just(Action::DecideCall),
        1 => Just(Action::TakeOver),
    ]
}

/// A chain: its buffer id, its number of descriptors in the ring, and its number of buffers.
type Model = (u16, u16, u16);

/// Numbers of used descriptors, all counted from the start of the test: the present number, the
/// number at the last decision whether to call, and the number at which the driver wants a call.
#[derive(Default)]
struct Calls {
    used: u64,
    decided: u64,
    wanted: u64,
}

proptest! {
    #[test]
    fn agrees_with_a_model(
        size in 1..12u16,
        behind_iommu: bool,
        actions in proptest::collection::vec(action(), 1..300),
    ) {
        let memory = match behind_iommu {
            true => swapped_pages(&memory(SIZE), SIZE).0,
            false => memory(SIZE),
        };
        let (mut ring, mut queue) = pair_in(memory.clone(), size, RING_FEATURES);
        ring.set_event(EVENT_DESC, 0x8000);
        let (mut waiting, mut flying) = (VecDeque::<Model>::new(), Vec::<Model>::new());
        let mut calls = Calls::default();
        let mut written = VecDeque::new();
        for action in actions {
            match action {
                Action::Add(length, table) => {
                    let slots = if table { 1 } else { length };
                    if slots > ring.room() {
                        continue;
                    }
                    let buffers = vec![BUFFER; length.into()];
                    let id = match table {
                        true => ring.add_indirect(0x8000, &buffers),
                        false => ring.add(&buffers),
                    };
                    // All indirect chains use the same table, so the device has to take each chain
                    // before the driver overwrites the table.
                    waiting.push_back((id, slots, length));
                    if table {
                        while let Some(model) = waiting.pop_front() {
                            let popped = pop(&mut queue).unwrap();
                            prop_assert_eq!(popped, (model.0, 16 * u64::from(model.2), 0));
                            flying.push(model);
                        }
                    }
                }
                Action::Pop => {
                    let expected = waiting.pop_front();
                    prop_assert_eq!(queue.has_requests().unwrap(), expected.is_some());
                    let popped = pop(&mut queue);
                    prop_assert_eq!(popped, expected.map(|(id, _, n)| (id, 16 * u64::from(n), 0)));
                    flying.extend(expected);
                }
                Action::Push(n, bytes) if !flying.is_empty() => {
                    let (id, slots, _) = flying.swap_remove(n % flying.len());
                    queue.push_used(id, bytes).unwrap();
                    written.push_back((u32::from(id), bytes));
                    calls.used += u64::from(slots);
                }
                Action::Push(..) => {}
                Action::CallAt(after) => {
                    // A position that is `size` or more descriptors ahead would have the same
                    // encoding as an earlier position.
                    calls.wanted = calls.used + u64::from(after.min(size - 1));
                    let lap = (calls.wanted / u64::from(size)).is_multiple_of(2);
                    let index = (calls.wanted % u64::from(size)) as u16;
                    ring.set_event(EVENT_DESC, index | u16::from(lap) << 15);
                }
                Action::DecideCall => {
                    let expected = (calls.decided..calls.used).contains(&calls.wanted);
                    // A position two laps ago has the same encoding as a position of the current
                    // lap. So the test checks the decision only if both numbers are at most one lap
                    // back.
                    if calls.used - calls.decided.min(calls.wanted) <= u64::from(size) {
                        prop_assert_eq!(queue.needs_call().unwrap(), expected);
                    } else {
                        queue.needs_call().unwrap();
                    }
                    calls.decided = calls.used;
                }
                Action::TakeOver if flying.is_empty() && calls.decided == calls.used => {
                    let base = queue.next_avail();
                    queue = Queue::new(memory.clone(), ring.layout(), RING_FEATURES, base).unwrap();
                }
                Action::TakeOver => {}
            }
            prop_assert_eq!(memory.is_in_use(0x4000, 0x4000), behind_iommu && !flying.is_empty());
            while let Some(used) = ring.pop_used() {
                prop_assert_eq!(Some(used), written.pop_front());
            }
            prop_assert!(written.is_empty());
        }
    }

    /// For any content of the ring, `pop` ends, and the buffer ids of the chains are below the
    /// ring's size.
    #[test]
    fn survives_any_ring(
        bytes in proptest::collection::vec(any::<u8>(), 16 * 8),
        laps in proptest::collection::vec(any::<bool>(), 8),
        position in (0..8u16, any::<bool>()),
        features in prop_oneof![Just(0), Just(RING_FEATURES)],
    ) {
        let (ring, queue) = pair(8, features);
        let (memory, layout) = (queue.memory().clone(), ring.layout());
        memory.write_slice(&bytes, layout.desc).unwrap();
        for (at, lap) in (0u64..).zip(laps) {
            let addr = GuestAddress(layout.desc.0 + 16 * at + 14);
            let flags = memory.read_obj::<u16>(addr).unwrap() & 7;
            let flags = flags | if lap { AVAIL } else { USED };
            memory.write_obj(flags.to_le(), addr).unwrap();
        }
        let base = position.0 | u16::from(position.1) << 15;
        let mut queue = Queue::new(memory, layout, features, base).unwrap();
        let mut chain = Chain::default();
        for _ in 0..20 {
            match queue.pop(&mut chain) {
                Ok(true) => prop_assert!(chain.head < 8),
                Ok(false) | Err(_) => break,
            }
            if chain.head & 1 == 0 {
                queue.push_used(chain.head, 1).unwrap();
            }
        }
    }
}
