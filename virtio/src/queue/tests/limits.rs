//! Tests of chains of the maximum size.

use super::*;
use crate::chain::MAX_PIECES;
use crate::memory::Mapping;
use crate::test_utils::{AnyDriverRing, anonymous_file};
use crate::vring::first_position;
use crate::{BufferError, Region, Translation};
use vm_memory::Permissions;

const SIZE: u16 = 2048;
const TABLE: u64 = 0x10_0000;
const BUFFER: u64 = 0x20_0000;

const MOST: usize = MAX_DESCRIPTORS as usize;

/// Where a chain's descriptors are: in the ring, in an indirect table, or in both.
#[derive(Clone, Copy, Debug)]
enum Where {
    Ring,
    Table,
    /// The given number of descriptors is in the ring, and the other descriptors are in an indirect
    /// table.
    Both(usize),
}

/// A queue with one chain of `count` buffers of one byte each. The last buffer is writable.
fn chain_of(packed: bool, count: usize, place: Where) -> Queue {
    let memory = memory(0x40_0000);
    let mut ring = AnyDriverRing::new(packed, memory.clone(), 0x1000, SIZE);
    let mut buffers = vec![(BUFFER, 1, false); count - 1];
    buffers.push((BUFFER, 1, true));
    match (&mut ring, place) {
        (ring, Where::Ring) => drop(ring.add(&buffers)),
        (AnyDriverRing::Packed(ring), _) => drop(ring.add_indirect(TABLE, &buffers)),
        (AnyDriverRing::Split(ring), Where::Table) => add_table(ring, 0, &buffers),
        (AnyDriverRing::Split(ring), Where::Both(direct)) => add_table(ring, direct, &buffers),
    }
    let first = first_position(packed);
    Queue::new(memory, ring.layout(), RING_FEATURES, first).unwrap()
}

/// Adds a chain. The first `direct` buffers are in the ring, and the other buffers are in an
/// indirect table.
fn add_table(ring: &mut DriverRing, direct: usize, buffers: &[(u64, u32, bool)]) {
    let (direct, rest) = buffers.split_at(direct);
    for (index, &(addr, len, write)) in (0..).zip(rest) {
        let more = usize::from(index) + 1 < rest.len();
        let flags = if write { WRITE } else { 0 } | if more { NEXT } else { 0 };
        ring.write_descriptor(GuestAddress(TABLE), index, (addr, len, flags, index + 1));
    }
    let mut entries = direct.to_vec();
    entries.push((TABLE, 16 * rest.len() as u32, false));
    ring.add(&entries);
    let last = (TABLE, 16 * rest.len() as u32, INDIRECT, 0);
    ring.write_descriptor(ring.layout().desc, direct.len() as u16, last);
}

#[test]
fn a_chain_has_at_most_1026_descriptors_wherever_they_are() {
    for (packed, place) in [
        (false, Where::Ring),
        (false, Where::Table),
        (false, Where::Both(500)),
        (true, Where::Ring),
        (true, Where::Table),
    ] {
        let mut chain = Chain::default();
        let mut queue = chain_of(packed, MOST, place);
        assert!(queue.pop(&mut chain).unwrap());
        let lengths = (chain.readable.len(), chain.writable.len());
        assert_eq!(lengths, (1025, 1), "packed: {packed}, {place:?}");
        let error = pop_error(&mut chain_of(packed, MOST + 1, place));
        let refused = matches!(error, QueueError::ChainTooLong(MAX_DESCRIPTORS));
        assert!(refused, "packed: {packed}, {place:?}: {error}");
    }
}

#[test]
fn a_chain_that_goes_round_in_a_large_ring_or_table_ends() {
    for place in [Where::Ring, Where::Table] {
        let mut queue = chain_of(false, 3, place);
        let start = match place {
            Where::Ring => 0x1000,
            _ => TABLE,
        };
        // The `next` field of the second descriptor now names the first descriptor.
        let next = GuestAddress(start + 30);
        queue.memory().write_obj(0u16, next).unwrap();
        let error = pop_error(&mut queue);
        let refused = matches!(error, QueueError::ChainTooLong(MAX_DESCRIPTORS));
        assert!(refused, "{place:?}: {error}");
    }
}

/// Makes memory in which each of the `bytes` bytes from `BUFFER` on has its own mapping.
fn scattered(bytes: u64) -> Arc<GuestMemory> {
    let translation = Translation::default();
    let map = |start, size, target| {
        let mapping = Mapping {
            size,
            target: Some(GuestAddress(target)),
            access: Permissions::ReadWrite,
        };
        translation.map(start, mapping).unwrap();
    };
    map(0, BUFFER, 0);
    for addr in BUFFER..BUFFER + bytes {
        map(addr, 1, addr ^ 1);
    }
    Arc::new(memory(0x40_0000).translated(Arc::new(translation)))
}

/// Makes a request with `bytes` bytes of data. Each byte has its own mapping. Returns the number of
/// separate memory ranges that hold the data, and whether the device can write the request's
/// status.
fn access_scattered(bytes: u64) -> (Option<usize>, bool) {
    let memory = scattered(bytes);
    let mut ring = DriverRing::new(memory.clone(), 0x1000, 16);
    let data = (BUFFER, bytes as u32, true);
    ring.add(&[(0x8000, 16, false), data, (0x9000, 1, true)]);
    let mut queue = Queue::new(memory.clone(), ring.layout(), 0, 0).unwrap();
    let mut chain = Chain::default();
    assert!(queue.pop(&mut chain).unwrap());
    let mut iovecs = Vec::new();
    let found = chain.writable.iovecs(&memory, 0, bytes, &mut iovecs);
    let status = chain.writable.write(&memory, bytes, &[0]);
    let refused = matches!(found, Err(BufferError::TooManyPieces));
    assert_eq!(found.is_err(), refused, "{found:?}");
    (found.is_ok().then_some(iovecs.len()), status.is_ok())
}

#[test]
fn a_chain_in_too_many_mappings_has_no_data_but_a_status() {
    let most = MAX_PIECES - 2;
    assert_eq!(access_scattered(most as u64), (Some(most), true));
    assert_eq!(access_scattered(most as u64 + 1), (None, true));
}

#[test]
fn a_buffer_over_too_many_regions_is_refused() {
    let count = MAX_PIECES as u64 + 1;
    let file = anonymous_file(count << 12);
    let region = |n| Region::map(file.clone(), n << 12, GuestAddress(n << 12), 0x1000, true);
    let regions = (0..count).map(|n| region(n).unwrap()).collect();
    let memory = Arc::new(GuestMemory::from_regions(regions).unwrap());
    let mut ring = DriverRing::new(memory.clone(), 0, 16);
    ring.add(&[(0x800, (count << 12) as u32 - 0x800, true)]);
    let mut queue = Queue::new(memory.clone(), ring.layout(), 0, 0).unwrap();
    let mut chain = Chain::default();
    assert!(queue.pop(&mut chain).unwrap());
    let mut iovecs = Vec::new();
    // The length of the buffer up to the end of the second-to-last region.
    let most = ((count - 1) << 12) - 0x800;
    let found = chain.writable.iovecs(&memory, 0, most, &mut iovecs);
    assert_eq!((found.is_ok(), iovecs.len()), (true, MAX_PIECES));
    iovecs.clear();
    let found = chain.writable.iovecs(&memory, 0, most + 1, &mut iovecs);
    assert!(matches!(found, Err(BufferError::TooManyPieces)));
    assert_eq!(iovecs.len(), MAX_PIECES);
}

#[test]
fn the_largest_chain_takes_little_memory_and_gives_it_back() {
    let memory = scattered(MAX_PIECES as u64 + 1);
    let mut ring = DriverRing::new(memory.clone(), 0x1000, SIZE);
    // Each buffer except the second is in more pieces than a chain may have in total.
    let mut buffers = vec![(BUFFER, MAX_PIECES as u32 + 1, true); MOST];
    buffers[1].1 = 3000;
    ring.add(&buffers);
    let mut queue = Queue::new(memory.clone(), ring.layout(), 0, 0).unwrap();
    let mut chain = Chain::default();
    assert!(queue.pop(&mut chain).unwrap());
    let [_, segments] = chain.lists_mut();
    assert_eq!(segments.len(), 3000 + MOST - 1);
    assert!(segments.capacity() <= 2 * MAX_PIECES);
    queue.push_used(chain.head, 0).unwrap();
    chain.clear();
    assert!(chain.lists_mut()[1].capacity() <= 256);
}
