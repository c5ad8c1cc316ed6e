//! Tests of rings whose parts are scattered over memory.

use super::*;
use crate::memory::Mapping;
use crate::test_utils::AnyDriverRing;
use crate::vring::first_position;
use crate::{Region, Translation};
use vm_memory::Permissions;

const MEMORY: u64 = 0x10_0000;
const SIZE: u16 = 512;

/// Makes memory behind an IOMMU that swaps each two adjacent ranges of `piece` bytes.
fn swapped(piece: u64) -> Arc<GuestMemory> {
    let translation = Translation::default();
    for start in (0..MEMORY).step_by(piece as usize) {
        let mapping = Mapping {
            size: piece,
            target: Some(GuestAddress(start ^ piece)),
            access: Permissions::ReadWrite,
        };
        translation.map(start, mapping).unwrap();
    }
    Arc::new(memory(MEMORY).translated(Arc::new(translation)))
}

/// Makes memory that consists of regions of `bytes` bytes. The region with the lowest address is
/// last in the file.
fn regions(bytes: u64) -> Arc<GuestMemory> {
    let file = crate::test_utils::anonymous_file(MEMORY);
    let region = |start| {
        let offset = MEMORY - bytes - start;
        Region::map(file.clone(), offset, GuestAddress(start), bytes, true).unwrap()
    };
    let regions = (0..MEMORY).step_by(bytes as usize).map(region);
    Arc::new(GuestMemory::from_regions(regions.collect()).unwrap())
}

/// Sends chains through all entries of a ring, at least three times.
fn go_round(memory: &Arc<GuestMemory>, packed: bool) {
    let mut ring = AnyDriverRing::new(packed, memory.clone(), 0x1230, SIZE);
    let (layout, first) = (ring.layout(), first_position(packed));
    let mut queue = Queue::new(memory.clone(), layout, RING_FEATURES, first).unwrap();
    let mut chain = Chain::default();
    for round in 0..3 * u32::from(SIZE) {
        ring.ask_for_call(true);
        assert!(!queue.enable_kick().unwrap());
        let head = ring.add(&[(0x8000, 16, false), (0x8010, 16, true)]);
        assert!(ring.wants_kick(true));
        assert!(queue.pop(&mut chain).unwrap());
        assert_eq!((chain.readable.len(), chain.writable.len()), (16, 16));
        queue.push_used(chain.head, round).unwrap();
        assert!(queue.needs_call().unwrap());
        assert_eq!(ring.pop_used(), Some((head.into(), round)));
    }
}

#[test]
fn rings_over_many_pages_work_wherever_the_pages_are() {
    for packed in [false, true] {
        go_round(&swapped(0x1000), packed);
        go_round(&swapped(0x4000), packed);
        go_round(&regions(0x1000), packed);
    }
}

#[test]
fn rings_in_pieces_smaller_than_a_page_work() {
    for packed in [false, true] {
        go_round(&swapped(0x40), packed);
        go_round(&swapped(0x800), packed);
    }
}
