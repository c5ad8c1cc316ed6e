use super::*;
use crate::test_utils::{DriverRing, memory};

mod hand_over;

/// Indices beside which 16-bit and signed arithmetic may go wrong.
const EDGES: [u16; 6] = [0, 1, 0x7fff, 0x8000, 0xfffe, 0xffff];

fn pair(size: u16, event_idx: bool) -> (DriverRing, SplitQueue) {
    let memory = memory(0x10_0000);
    let ring = DriverRing::new(memory.clone(), 0x1000, size);
    let features = Features {
        indirect: false,
        event_idx,
    };
    let queue = SplitQueue::new(&memory, ring.layout(), features, 0).unwrap();
    (ring, queue)
}

#[test]
fn an_event_is_passed_by_the_entries_from_the_last_decision_to_the_published_index() {
    for before in [0u16, 1, 0x7fff, 0x8000, 0xff00, 0xffff] {
        for new in [0u16, 1, 2, 255, 256, 0x7fff, 0x8000, 0xffff] {
            let published = before.wrapping_add(new);
            for distance in 0..=u16::MAX {
                let event = before.wrapping_add(distance);
                let passed = is_among(before, published, event);
                assert_eq!(passed, distance < new, "{event} in {before}..{published}");
            }
        }
    }
}

#[test]
fn an_available_index_is_accepted_when_and_only_when_its_requests_fit_the_ring() {
    for size in [1, 2, 256, 0x8000] {
        let (mut ring, mut queue) = pair(size, false);
        for index in 0..=u16::MAX {
            ring.set_avail_index(index);
            for next in EDGES {
                queue.next_avail = next;
                let fitting = u32::from(next)..=u32::from(next) + u32::from(size);
                let laps = [0, 0x1_0000];
                let fits = laps.map(|lap| fitting.contains(&(u32::from(index) + lap)));
                let expected = fits.contains(&true).then_some(index != next);
                assert_eq!(queue.look().ok(), expected, "{index} from {next} of {size}");
            }
        }
    }
}

#[test]
fn a_driver_that_obeys_avail_event_sends_no_kick_while_kicks_are_off() {
    for size in [1, 2, 8] {
        let (ring, mut queue) = pair(size, true);
        for next in 0..=u16::MAX {
            queue.next_avail = next;
            queue.disable_kick().unwrap();
            let event = ring.avail_event();
            // The driver has added up to `size` requests that the device has not taken yet, and
            // decides on a kick for the last `added` requests.
            for (ahead, added) in (0..=size).flat_map(|a| (0..=size).map(move |b| (a, b))) {
                let index = next.wrapping_add(ahead);
                let passed = (0..added).any(|back| index.wrapping_sub(back + 1) == event);
                assert!(!passed, "{added} added before {index}, {next} of {size}");
            }
        }
    }
}
