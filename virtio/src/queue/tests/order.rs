//! Tests of chains that are given back in the order in which they were made available.

use super::*;
use crate::test_utils::AnyDriverRing;
use crate::vring::first_position;

fn pair(packed: bool) -> (AnyDriverRing, Queue) {
    let memory = memory(0x10000);
    let ring = AnyDriverRing::new(packed, memory.clone(), 0x1000, 16);
    let first = first_position(packed);
    let queue = Queue::new(memory, ring.layout(), RING_FEATURES | IN_ORDER, first).unwrap();
    (ring, queue)
}

#[test]
fn a_chain_that_ends_early_waits_for_those_before_it() {
    for packed in [false, true] {
        let (mut ring, mut queue) = pair(packed);
        let mut chain = Chain::default();
        let heads = [1, 2, 3, 1].map(|length| ring.add(&vec![(0x4000, 1, true); length]));
        for _ in heads {
            assert!(queue.pop(&mut chain).unwrap());
        }
        for (ended, given_back) in [(2, 0..0), (1, 0..0), (0, 0..3), (3, 3..4)] {
            ring.ask_for_call(true);
            queue.push_used(heads[ended], ended as u32 + 1).unwrap();
            let expected = !given_back.is_empty();
            assert_eq!(queue.needs_call().unwrap(), expected, "{ended}");
            for next in given_back {
                let used = (heads[next].into(), next as u32 + 1);
                assert_eq!(ring.pop_used(), Some(used));
            }
            assert_eq!(ring.pop_used(), None);
        }
    }
}

#[test]
fn a_chain_that_is_in_flight_cannot_be_made_available() {
    let (mut ring, mut queue) = pair(false);
    let head = ring.add(&[(0x4000, 1, true)]);
    ring.split().publish(head);
    assert!(queue.pop(&mut Chain::default()).unwrap());
    let error = pop_error(&mut queue);
    assert!(matches!(error, QueueError::InFlight(again) if again == head));
    assert_eq!(queue.next_avail(), 1, "it stays untaken");
    queue.push_used(head, 0).unwrap();
    assert!(queue.pop(&mut Chain::default()).unwrap());
}

proptest! {
    /// The device completes chains in any order, but the driver gets them back in the order in
    /// which it made them available.
    #[test]
    fn order_is_kept(
        packed: bool,
        steps in proptest::collection::vec((0..3u8, any::<usize>()), 1..300),
    ) {
        let (mut ring, mut queue) = pair(packed);
        let (mut expected, mut flying) = (std::collections::VecDeque::new(), Vec::new());
        for (step, n) in steps {
            if step == 0 && expected.len() < 8 {
                expected.push_back(ring.add(&vec![(0x4000, 1, true); 1 + n % 2]));
            } else if step == 1 {
                let mut chain = Chain::default();
                flying.extend(queue.pop(&mut chain).unwrap().then_some(chain.head));
            } else if step == 2 && !flying.is_empty() {
                let head = flying.swap_remove(n % flying.len());
                queue.push_used(head, head.into()).unwrap();
                queue.publish().unwrap();
            }
            while let Some((head, written)) = ring.pop_used() {
                prop_assert_eq!(head, written);
                prop_assert_eq!(expected.pop_front(), Some(head as u16));
            }
            let late = expected.front().is_some_and(|head| !flying.contains(head));
            prop_assert!(!late || queue.has_requests().unwrap());
        }
    }
}
