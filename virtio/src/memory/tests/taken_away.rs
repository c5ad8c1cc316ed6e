//! Tests of memory that the driver takes away while queues use it.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const SIZE: u64 = 0x10000;
/// The numbers of the pages that hold buffers. The rings are in pages with lower numbers.
const BUFFERS: std::ops::Range<u64> = 8..12;

fn page(number: u64) -> Mapping {
    mapping((number << 12) ^ 0x1000, 0x1000, Permissions::ReadWrite)
}

#[test]
fn a_ring_is_no_longer_accessed_after_its_memory_was_unmapped() {
    let (memory, translation) = swapped_pages(&memory(SIZE), SIZE);
    let mut ring = DriverRing::new(memory.clone(), 0x1000, 256);
    let mut queue = Queue::new(memory.clone(), ring.layout(), 0, 0).unwrap();
    let mut chain = Chain::default();
    ring.add(&[(0x8000, 16, false)]);
    // Page 9 holds no part of the rings.
    translation.unmap(0x9000, 0x9fff);
    assert!(queue.pop(&mut chain).unwrap());
    // The available and the used ring are in page 2.
    translation.unmap(0x2000, 0x2fff);
    assert!(queue.has_requests().is_err());
    assert!(queue.push_used(chain.head, 0).is_err());
}

#[test]
fn a_ring_that_moves_is_found_again() {
    let plain = memory(SIZE);
    let (memory, translation) = swapped_pages(&plain, SIZE);
    let mut ring = DriverRing::new(memory.clone(), 0x1000, 16);
    let mut queue = Queue::new(memory.clone(), ring.layout(), 0, 0).unwrap();
    let mut chain = Chain::default();
    for target in [0x7000, 0x3000, 0xf000] {
        let mut bytes = [0; 0x1000];
        memory.read_slice(&mut bytes, GuestAddress(0x1000)).unwrap();
        translation.unmap(0x1000, 0x1fff);
        plain.write_slice(&bytes, GuestAddress(target)).unwrap();
        let mapping = mapping(target, 0x1000, Permissions::ReadWrite);
        translation.map(0x1000, mapping).unwrap();
        let head = ring.add(&[(0x8000, 16, false)]);
        assert!(queue.pop(&mut chain).unwrap());
        queue.push_used(chain.head, 0).unwrap();
        queue.publish().unwrap();
        assert_eq!(ring.pop_used(), Some((head.into(), 0)));
    }
}

#[test]
fn rings_need_memory_for_the_accesses_that_they_need() {
    let plain = memory(SIZE);
    let ring = DriverRing::new(plain.clone(), 0, 256);
    for (used, works) in [(Permissions::Read, false), (Permissions::ReadWrite, true)] {
        let translation = Arc::new(Translation::default());
        // The second mapping begins at 0x1200, and contains the whole used ring.
        translation
            .map(0, mapping(0, 0x1200, Permissions::Read))
            .unwrap();
        translation
            .map(0x1200, mapping(0x1200, 0x1000, used))
            .unwrap();
        let memory = Arc::new(plain.translated(translation));
        let queue = Queue::new(memory, ring.layout(), 0, 0);
        assert_eq!(queue.is_ok(), works, "{used:?}");
    }
}

/// Serves the queue until `stop` is true. Writes to the buffer of each request.
fn serve(mut queue: Queue, stop: &AtomicBool) {
    let memory = queue.memory().clone();
    let mut chain = Chain::default();
    while !stop.load(Ordering::Relaxed) {
        while queue.pop(&mut chain).unwrap() {
            // The write fails if the buffer's memory was unmapped before the chain was taken.
            let _ = chain.writable.write(&memory, 0, &[0xdd; 64]);
            queue.push_used(chain.head, 64).unwrap();
        }
        queue.publish().unwrap();
        thread::yield_now();
    }
}

#[test]
fn memory_that_was_given_up_is_not_written_any_more() {
    let plain = memory(SIZE);
    let (memory, translation) = swapped_pages(&plain, SIZE);
    // The test does not stop the queue before it unmaps memory, but waits until no chain in flight
    // uses the memory.
    let wait = |first, last| {
        while memory.is_in_use(first, last) {
            thread::yield_now();
        }
    };
    let mut ring = DriverRing::new(memory.clone(), 0x1000, 64);
    let queue = Queue::new(memory.clone(), ring.layout(), 0, 0).unwrap();
    let mut round = |number: u64| {
        let (first, last) = (number << 12, (number << 12) + 0xfff);
        ring.add(&[(first, 64, true)]);
        wait(first, last);
        translation.unmap(first, last);
        wait(first, last);
        // The driver may now use the page for other data.
        let target = GuestAddress(first ^ 0x1000);
        plain.write_slice(&[0; 64], target).unwrap();
        let is_zero = |_| {
            thread::yield_now();
            plain.read_obj::<[u64; 8]>(target).unwrap() == [0; 8]
        };
        let untouched = (0..20).all(is_zero);
        while ring.pop_used().is_none() {
            thread::yield_now();
        }
        translation.map(first, page(number)).unwrap();
        untouched
    };
    let stop = AtomicBool::new(false);
    let all_untouched = thread::scope(|scope| {
        scope.spawn(|| serve(queue, &stop));
        let untouched =
            (0..2000).all(|n| round(BUFFERS.start + n % BUFFERS.clone().count() as u64));
        stop.store(true, Ordering::Relaxed);
        untouched
    });
    assert!(all_untouched);
}
