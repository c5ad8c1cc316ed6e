//! Tests of chains that are put back before they are served.

use super::*;
use crate::test_utils::{AnyDriverRing, swapped_pages};
use crate::vring::first_position;

/// Each layout of the ring, without and with VIRTIO_F_IN_ORDER.
const WAYS: [(bool, u64); 4] = [(false, 0), (false, IN_ORDER), (true, 0), (true, IN_ORDER)];

fn pair((packed, order): (bool, u64), memory: Arc<GuestMemory>) -> (AnyDriverRing, Queue) {
    let ring = AnyDriverRing::new(packed, memory.clone(), 0x1000, 8);
    let first = first_position(packed);
    let queue = Queue::new(memory, ring.layout(), RING_FEATURES | order, first).unwrap();
    (ring, queue)
}

fn lengths(chain: &Chain) -> (u64, u64) {
    (chain.readable.len(), chain.writable.len())
}

#[test]
fn a_chain_that_is_put_back_is_taken_again_while_others_are_in_flight() {
    for way in WAYS {
        let (mut ring, mut queue) = pair(way, memory(0x10000));
        let (mut first, mut second) = (Chain::default(), Chain::default());
        for round in 0..50u32 {
            let buffers = vec![(0x4000, 16, true); 1 + round as usize % 3];
            let heads = [ring.add(&[(0x4000, 1, false)]), ring.add(&buffers)];
            assert!(queue.pop(&mut first).unwrap());
            let position = queue.next_avail();
            for _ in 0..2 {
                assert!(queue.pop(&mut second).unwrap());
                assert_eq!(lengths(&second), (0, 16 * buffers.len() as u64), "{way:?}");
                queue.put_back(&mut second);
                assert_eq!(lengths(&second), (0, 0));
                assert_eq!(queue.next_avail(), position, "{way:?}");
                assert!(queue.has_requests().unwrap());
            }
            queue.push_used(heads[0], round).unwrap();
            assert!(queue.pop(&mut second).unwrap());
            queue.push_used(heads[1], 7).unwrap();
            queue.publish().unwrap();
            assert_eq!(ring.pop_used(), Some((heads[0].into(), round)), "{way:?}");
            assert_eq!(ring.pop_used(), Some((heads[1].into(), 7)), "{way:?}");
            assert_eq!(queue.next_avail(), ring.position());
        }
    }
}

#[test]
fn another_queue_goes_on_with_the_chain_that_was_put_back() {
    for way in WAYS {
        let (mut ring, mut queue) = pair(way, memory(0x10000));
        let mut chain = Chain::default();
        let heads = [1, 2].map(|count| ring.add(&vec![(0x4000, 1, false); count]));
        for _ in heads {
            assert!(queue.pop(&mut chain).unwrap());
        }
        queue.put_back(&mut chain);
        queue.push_used(heads[0], 0).unwrap();
        queue.publish().unwrap();
        let (memory, base) = (queue.memory().clone(), queue.next_avail());
        let mut next = Queue::new(memory, ring.layout(), RING_FEATURES | way.1, base).unwrap();
        assert!(next.pop(&mut chain).unwrap());
        assert_eq!((chain.head, lengths(&chain)), (heads[1], (2, 0)), "{way:?}");
        assert!(!next.pop(&mut chain).unwrap());
    }
}

#[test]
fn a_chain_that_the_driver_changed_is_checked_again() {
    let (mut ring, mut queue) = pair((false, 0), memory(0x10000));
    let mut chain = Chain::default();
    ring.add(&[(0x4000, 1, false)]);
    assert!(queue.pop(&mut chain).unwrap());
    queue.put_back(&mut chain);
    let ring = ring.split();
    ring.write_descriptor(ring.layout().desc, 0, (0x4000, 1, NEXT, 0));
    assert!(matches!(pop_error(&mut queue), QueueError::ChainTooLong(8)));
    ring.write_descriptor(ring.layout().desc, 0, (0x4000, 5, WRITE, 0));
    assert!(queue.pop(&mut chain).unwrap());
    assert_eq!(lengths(&chain), (0, 5));
}

#[test]
fn a_chain_that_was_put_back_does_not_use_memory() {
    for way in WAYS {
        let (memory, _) = swapped_pages(&memory(0x10000), 0x10000);
        let (mut ring, mut queue) = pair(way, memory.clone());
        let mut chain = Chain::default();
        ring.add(&[(0x8000, 16, false)]);
        assert!(queue.pop(&mut chain).unwrap());
        assert!(memory.is_in_use(0x8000, 0x8fff));
        queue.put_back(&mut chain);
        assert!(!memory.is_in_use(0x8000, 0x8fff));
    }
}

#[test]
fn a_head_that_is_in_flight_twice_does_not_confuse_the_queue() {
    // A driver of a split ring can make a chain available twice.
    let (mut ring, mut queue) = pair((false, 0), memory(0x10000));
    let mut chain = Chain::default();
    let head = ring.add(&[(0x4000, 1, false)]);
    ring.split().publish(head);
    for _ in 0..2 {
        assert!(queue.pop(&mut chain).unwrap());
    }
    queue.push_used(head, 0).unwrap();
    queue.put_back(&mut chain);
    assert_eq!(queue.next_avail(), 1);
}

#[test]
#[should_panic(expected = "another chain was taken last")]
fn only_the_chain_that_was_taken_last_can_be_put_back() {
    let (mut ring, mut queue) = pair((false, 0), memory(0x10000));
    let (mut first, mut second) = (Chain::default(), Chain::default());
    for chain in [&mut first, &mut second] {
        ring.add(&[(0x4000, 1, false)]);
        assert!(queue.pop(chain).unwrap());
    }
    queue.put_back(&mut first);
}
