use super::*;
use proptest::prelude::*;

const IOVA: u64 = 0x1000_0000;
const BUFFER: usize = 64;

fn queue(size: u16, device_writes: bool) -> DriverQueue {
    let memory = DmaMemory::new(DriverQueue::end(8, size, BUFFER)).unwrap();
    DriverQueue::new(memory, IOVA, 8, size, BUFFER, device_writes)
}

/// Writes to the used ring in the order in which a device writes. The entry in `slot` is written
/// first, and then the index.
fn use_buffer(queue: &DriverQueue, slot: usize, id: u32, len: u32, index: u16) {
    let entry = queue.offsets.used + 4 + 8 * slot;
    queue.memory.write(entry, id);
    queue.memory.write(entry + 4, len);
    queue.memory.write(queue.offsets.used + 2, index);
}

#[test]
fn the_parts_of_a_queue_are_aligned_and_do_not_overlap() {
    let layout = queue(16, true).layout();
    assert_eq!(layout.desc, IOVA + 16);
    assert_eq!(layout.avail, layout.desc + 256);
    assert!(layout.used >= layout.avail + 6 + 32);
    assert_eq!((layout.desc | layout.avail | layout.used) % 16, 0);
}

#[test]
fn a_posted_buffer_has_a_descriptor_and_an_available_entry() {
    let mut queue = queue(4, true);
    queue.post(2, BUFFER);
    let desc = queue.offsets.desc + 32;
    let address = IOVA + (queue.offsets.buffers + 2 * BUFFER) as u64;
    assert_eq!(queue.memory.read::<u64>(desc), address);
    assert_eq!(queue.memory.read::<u32>(desc + 8), BUFFER as u32);
    assert_eq!(queue.memory.read::<u16>(desc + 12), WRITE);
    assert_eq!(queue.memory.read::<u16>(queue.offsets.avail + 4), 2);
    assert_eq!(queue.memory.read::<u16>(queue.offsets.avail + 2), 1);
}

#[test]
fn buffers_return_in_any_order() {
    let mut queue = queue(4, true);
    (0..4).for_each(|id| queue.post(id, BUFFER));
    assert_eq!(queue.free_buffer(), None);
    assert_eq!(queue.take_used(), Ok(None));
    use_buffer(&queue, 0, 3, 12, 1);
    use_buffer(&queue, 1, 0, 0, 2);
    assert_eq!(queue.take_used(), Ok(Some(Used { id: 3, len: 12 })));
    assert_eq!(queue.take_used(), Ok(Some(Used { id: 0, len: 0 })));
    assert_eq!(queue.take_used(), Ok(None));
    assert_eq!(queue.free_buffer(), Some(0));
}

#[test]
fn indexes_wrap_around() {
    let mut queue = queue(1, false);
    for round in 1..=70_000u32 {
        queue.post(0, 1);
        use_buffer(&queue, 0, 0, 0, round as u16);
        assert_eq!(queue.take_used(), Ok(Some(Used { id: 0, len: 0 })));
    }
}

#[test]
fn a_buffer_that_the_device_does_not_have_is_refused() {
    for id in [1, 4, 6, 0x1_0002, u32::MAX] {
        let mut queue = queue(4, true);
        queue.post(2, BUFFER);
        use_buffer(&queue, 0, id, 0, 1);
        assert_eq!(queue.take_used(), Err(UsedError::NotInFlight(id)));
    }
    let mut queue = queue(4, true);
    queue.post(2, BUFFER);
    queue.post(3, BUFFER);
    use_buffer(&queue, 0, 2, 0, 1);
    use_buffer(&queue, 1, 2, 0, 2);
    assert!(queue.take_used().is_ok());
    assert_eq!(queue.take_used(), Err(UsedError::NotInFlight(2)), "twice");
}

#[test]
fn a_length_beyond_the_buffer_is_refused() {
    let mut receive = queue(4, true);
    receive.post(0, BUFFER);
    use_buffer(&receive, 0, 0, 65, 1);
    assert_eq!(receive.take_used(), Err(UsedError::TooLong(65, BUFFER)));
    let mut send = queue(4, false);
    send.post(0, 20);
    use_buffer(&send, 0, 0, 20, 1);
    let used = send.take_used().unwrap();
    assert_eq!(
        used,
        Some(Used { id: 0, len: 0 }),
        "the length of a read is ignored"
    );
}

#[test]
fn more_buffers_than_there_are_are_refused() {
    let mut queue = queue(4, true);
    queue.post(0, BUFFER);
    use_buffer(&queue, 0, 0, 0, 5);
    assert_eq!(queue.take_used(), Err(UsedError::TooMany(5, 4)));
}

#[test]
fn a_message_is_copied_into_and_out_of_a_buffer() {
    let queue = queue(4, true);
    queue.fill(3, b"hello");
    assert_eq!(queue.copy_out(Used { id: 3, len: 5 }), b"hello");
}

proptest! {
    #[test]
    fn random_entries_in_the_used_ring_never_panic(
        index: u16,
        entries in prop::collection::vec((any::<u32>(), any::<u32>()), 8),
        small_ids: bool,
    ) {
        let mut queue = queue(8, true);
        (0..8).for_each(|id| queue.post(id, BUFFER));
        for (slot, (id, len)) in entries.iter().enumerate() {
            let id = if small_ids { id % 9 } else { *id };
            use_buffer(&queue, slot, id, len % 70, index);
        }
        for _ in 0..10 {
            let Ok(Some(used)) = queue.take_used() else { break };
            prop_assert!(used.id < 8 && used.len <= BUFFER);
            queue.copy_out(used);
            queue.post(used.id, BUFFER);
        }
    }
}
