use super::*;
use crate::test_utils::{DriverRing, INDIRECT, NEXT, WRITE, memory};
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

pub(super) mod hand_over;
mod limits;
mod order;
mod packed;
mod places;
mod put_back;
mod reference;

const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;

fn pair(size: u16, features: u64) -> (DriverRing, Queue) {
    let memory = memory(0x10000);
    let ring = DriverRing::new(memory.clone(), 0x1000, size);
    let queue = Queue::new(memory, ring.layout(), features, 0).unwrap();
    (ring, queue)
}

fn pop_error(queue: &mut Queue) -> QueueError {
    queue.pop(&mut Chain::default()).unwrap_err()
}

#[test]
fn chains_are_handed_out_in_order_and_given_back() {
    let (mut ring, mut queue) = pair(8, 0);
    let mut chain = Chain::default();
    assert!(!queue.pop(&mut chain).unwrap());
    ring.add(&[(0x4000, 16, false), (0x5000, 512, true), (0x6000, 1, true)]);
    let second = ring.add(&[(0x4000, 16, false)]);
    assert!(queue.pop(&mut chain).unwrap());
    assert_eq!(
        (chain.head, chain.readable.len(), chain.writable.len()),
        (0, 16, 513)
    );
    queue.push_used(chain.head, 513).unwrap();
    queue.publish().unwrap();
    assert!(queue.pop(&mut chain).unwrap());
    assert_eq!((chain.head, chain.writable.len()), (second, 0));
    assert_eq!(ring.pop_used(), Some((0, 513)));
    assert_eq!(ring.pop_used(), None);
    assert_eq!(queue.next_avail(), 2);
}

#[test]
fn an_indirect_table_is_followed_from_its_first_descriptor() {
    let (mut ring, mut queue) = pair(4, RING_FEATURES);
    let table = GuestAddress(0x7000);
    ring.write_descriptor(table, 0, (0x4000, 16, NEXT, 2));
    ring.write_descriptor(table, 2, (0x5000, 8, WRITE, 0));
    ring.write_descriptor(ring.layout().desc, 3, (table.0, 48, INDIRECT, 0));
    ring.publish(3);
    let mut chain = Chain::default();
    assert!(queue.pop(&mut chain).unwrap());
    assert_eq!(
        (chain.head, chain.readable.len(), chain.writable.len()),
        (3, 16, 8)
    );
}

#[test]
fn a_table_at_the_end_of_a_chain_is_followed() {
    let (mut ring, mut queue) = pair(4, RING_FEATURES);
    let (desc, table) = (ring.layout().desc, GuestAddress(0x7000));
    ring.write_descriptor(table, 0, (0x5000, 8, WRITE, 0));
    ring.write_descriptor(desc, 0, (0x4000, 16, NEXT, 1));
    // The device ignores WRITE in a descriptor that points to an indirect table.
    ring.write_descriptor(desc, 1, (table.0, 16, INDIRECT | WRITE, 0));
    ring.publish(0);
    let mut chain = Chain::default();
    assert!(queue.pop(&mut chain).unwrap());
    assert_eq!((chain.readable.len(), chain.writable.len()), (16, 8));
}

#[test]
fn indirect_tables_that_break_the_rules_are_refused() {
    let cases = [
        (0, 16, INDIRECT, "feature not negotiated"),
        (RING_FEATURES, 0, INDIRECT, "empty"),
        (RING_FEATURES, 24, INDIRECT, "half a descriptor"),
        (RING_FEATURES, 16, INDIRECT | NEXT, "next beside indirect"),
    ];
    for (features, len, flags, why) in cases {
        let (mut ring, mut queue) = pair(4, features);
        ring.write_descriptor(ring.layout().desc, 0, (0x7000, len, flags, 1));
        ring.publish(0);
        let error = pop_error(&mut queue);
        let refused = matches!(
            error,
            QueueError::BadIndirect | QueueError::IndirectLength(_)
        );
        assert!(refused, "{why}: {error}");
    }
}

#[test]
fn an_indirect_table_inside_another_is_refused() {
    let (mut ring, mut queue) = pair(4, RING_FEATURES);
    ring.write_descriptor(GuestAddress(0x7000), 0, (0x7000, 16, INDIRECT, 0));
    ring.write_descriptor(ring.layout().desc, 0, (0x7000, 16, INDIRECT, 0));
    ring.publish(0);
    assert!(matches!(pop_error(&mut queue), QueueError::BadIndirect));
}

#[test]
fn loops_and_indices_outside_the_ring_are_refused() {
    let (mut ring, mut queue) = pair(4, RING_FEATURES);
    ring.write_descriptor(ring.layout().desc, 0, (0x4000, 1, NEXT, 0));
    ring.publish(0);
    assert!(matches!(pop_error(&mut queue), QueueError::ChainTooLong(4)));

    let (mut ring, mut queue) = pair(4, 0);
    ring.write_descriptor(ring.layout().desc, 0, (0x4000, 1, NEXT, 4));
    ring.publish(0);
    assert!(matches!(
        pop_error(&mut queue),
        QueueError::DescriptorIndex { index: 4, len: 4 }
    ));

    let (mut ring, mut queue) = pair(4, 0);
    ring.publish(4);
    assert!(matches!(
        pop_error(&mut queue),
        QueueError::DescriptorIndex { index: 4, len: 4 }
    ));

    let (mut ring, mut queue) = pair(4, 0);
    ring.set_avail_index(5);
    assert!(matches!(
        pop_error(&mut queue),
        QueueError::AvailIndex {
            next: 0,
            index: 5,
            size: 4
        }
    ));
}

#[test]
fn a_readable_buffer_after_a_writable_one_is_refused() {
    let (mut ring, mut queue) = pair(4, 0);
    ring.add(&[(0x4000, 1, true), (0x4000, 1, false)]);
    assert!(matches!(pop_error(&mut queue), QueueError::Order));
}

#[test]
fn a_broken_chain_stays_untaken() {
    let (mut ring, mut queue) = pair(4, 0);
    ring.publish(9);
    pop_error(&mut queue);
    assert_eq!(queue.next_avail(), 0);
}

#[test]
fn layouts_that_do_not_fit_are_refused() {
    let memory = memory(0x10000);
    let good = DriverRing::new(memory.clone(), 0x1000, 8).layout();
    let bad = [
        VringLayout { size: 0, ..good },
        VringLayout { size: 3, ..good },
        VringLayout {
            size: 32768,
            ..good
        },
        VringLayout {
            desc: GuestAddress(0x1008),
            ..good
        },
        VringLayout {
            avail: GuestAddress(0x1001),
            ..good
        },
        VringLayout {
            used: GuestAddress(0x1002),
            ..good
        },
        VringLayout {
            desc: GuestAddress(0xfff0),
            ..good
        },
        VringLayout {
            used: GuestAddress(0xffff_ffff_ffff_fffc),
            ..good
        },
    ];
    for layout in bad {
        let result = Queue::new(memory.clone(), layout, 0, 0);
        assert!(
            matches!(result, Err(QueueError::BadLayout(_))),
            "{layout:?}"
        );
    }
}

#[test]
fn a_queue_goes_on_where_another_stopped() {
    let (mut ring, mut queue) = pair(4, 0);
    let mut chain = Chain::default();
    for _ in 0..3 {
        ring.add(&[(0x4000, 1, false)]);
        assert!(queue.pop(&mut chain).unwrap());
        queue.push_used(chain.head, 0).unwrap();
        queue.publish().unwrap();
    }
    let base = queue.next_avail();
    let mut queue = Queue::new(queue.memory().clone(), ring.layout(), 0, base).unwrap();
    let head = ring.add(&[(0x4000, 1, false)]);
    assert!(queue.pop(&mut chain).unwrap());
    queue.push_used(chain.head, 7).unwrap();
    queue.publish().unwrap();
    let last = std::iter::from_fn(|| ring.pop_used()).last();
    assert_eq!(last, Some((u32::from(head), 7)));
}

#[test]
fn flags_suppress_calls_and_kicks_without_event_idx() {
    let (mut ring, mut queue) = pair(4, 0);
    assert!(!queue.needs_call().unwrap(), "there is no news");
    for (flags, expected) in [(0, true), (1, false)] {
        ring.set_avail_flags(flags);
        queue.push_used(0, 0).unwrap();
        assert_eq!(queue.needs_call().unwrap(), expected);
    }
    queue.disable_kick().unwrap();
    assert_eq!(ring.used_flags(), 1);
    ring.add(&[(0x4000, 1, false)]);
    assert!(
        queue.enable_kick().unwrap(),
        "a request came while kicks were off"
    );
    assert_eq!(ring.used_flags(), 0);
}

#[test]
fn event_idx_suppresses_calls_and_kicks() {
    let (mut ring, mut queue) = pair(8, EVENT_IDX);
    let mut chain = Chain::default();
    ring.set_used_event(1);
    for expected in [false, true] {
        ring.add(&[(0x4000, 1, false)]);
        assert!(queue.pop(&mut chain).unwrap());
        queue.push_used(chain.head, 0).unwrap();
        assert_eq!(queue.needs_call().unwrap(), expected);
    }
    // The NO_INTERRUPT flag has no effect if EVENT_IDX is negotiated.
    ring.set_avail_flags(1);
    ring.set_used_event(2);
    queue.push_used(0, 0).unwrap();
    assert!(queue.needs_call().unwrap());
    assert!(!queue.enable_kick().unwrap());
    assert_eq!(ring.avail_event(), 2);
    // After the device disables kicks, the driver sends no kick for the next request, and no kick
    // for a batch of requests.
    queue.disable_kick().unwrap();
    let needs_kick = |old: u16, new: u16| {
        let age = new.wrapping_sub(ring.avail_event()).wrapping_sub(1);
        age < new.wrapping_sub(old)
    };
    assert!(!needs_kick(2, 3) && !needs_kick(2, 10) && !needs_kick(0, 8));
}

proptest! {
    /// For any content of the rings, `pop` ends, and the heads of the chains are below the ring's
    /// size.
    #[test]
    fn survives_any_ring(
        bytes in proptest::collection::vec(any::<u8>(), 16 * 8 + 6 + 16),
        index in 0u16..16,
        features in prop_oneof![Just(0), Just(RING_FEATURES)],
    ) {
        let (mut ring, mut queue) = pair(8, features);
        queue.memory().write_slice(&bytes, ring.layout().desc).unwrap();
        ring.set_avail_index(index);
        let mut chain = Chain::default();
        for _ in 0..8 {
            match queue.pop(&mut chain) {
                Ok(true) => prop_assert!(chain.head < 8),
                Ok(false) | Err(_) => break,
            }
        }
    }
}
