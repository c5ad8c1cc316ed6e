//! Compares this crate's queue with the queue of the crate virtio-queue. With the same driver, both
//! queues have to take the same chains and give the same results.

use super::*;
use crate::test_utils::swapped_pages;
use virtio_queue::{Queue as TheirQueue, QueueT};

const SIZE: u16 = 32;
/// The size of the driver's memory in bytes.
const MEMORY: u64 = 0x10000;
/// The number of chains of the maximum length that fit the ring at the same time.
const CHAINS: usize = 8;

/// The next action of the driver or of the device.
#[derive(Clone, Debug)]
enum Event {
    /// The driver adds a chain with these numbers of readable and of writable buffers. The
    /// descriptors are in an indirect table if the flag is true.
    Add(u8, u8, bool),
    CallAt(u16),
    Pop,
    /// The device gives the oldest chain back, with this number of written bytes.
    Push(u32),
    DecideCall,
    EnableKick,
    DisableKick,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..3u8, 1..3u8, any::<bool>())
            .prop_map(|(out, into, table)| Event::Add(out, into, table)),
        1 => (0..40u16).prop_map(Event::CallAt),
        4 => Just(Event::Pop),
        4 => any::<u32>().prop_map(Event::Push),
        2 => Just(Event::DecideCall),
        1 => Just(Event::EnableKick),
        1 => Just(Event::DisableKick),
    ]
}

struct Side {
    ring: DriverRing,
    memory: Arc<GuestMemory>,
    /// The XOR of the driver's address of a byte and the address of the same byte in memory.
    swap: u64,
}

impl Side {
    fn new(near_wrap: bool, behind_iommu: bool) -> Self {
        let memory = match behind_iommu {
            true => swapped_pages(&memory(MEMORY), MEMORY).0,
            false => memory(MEMORY),
        };
        let mut ring = DriverRing::new(memory.clone(), 0x1000, SIZE);
        if near_wrap {
            ring.start_at(u16::MAX - 5);
        }
        let swap = if behind_iommu { 0x1000 } else { 0 };
        Self { ring, memory, swap }
    }

    fn add(&mut self, out: u8, into: u8, table: bool) {
        let buffer = |n: u8| (0x4000 + 0x100 * u64::from(n), u32::from(n) + 1, n >= out);
        let buffers: Vec<_> = (0..out + into).map(buffer).collect();
        match table {
            false => drop(self.ring.add(&buffers)),
            true => self.add_table(&buffers),
        }
    }

    fn add_table(&mut self, buffers: &[(u64, u32, bool)]) {
        // Each descriptor of the ring has its own table.
        let head = self.ring.add(&[(0, 1, false)]);
        let table = GuestAddress(0x8000 + 0x100 * u64::from(head));
        for (index, &(addr, len, write)) in (0u16..).zip(buffers) {
            let more = usize::from(index) + 1 < buffers.len();
            let flags = if write { WRITE } else { 0 } | if more { NEXT } else { 0 };
            self.ring
                .write_descriptor(table, index, (addr, len, flags, index + 1));
        }
        let entry = (table.0, 16 * buffers.len() as u32, INDIRECT, 0);
        self.ring
            .write_descriptor(self.ring.layout().desc, head, entry);
    }
}

/// A chain in a form that can be compared: its head, and the address, length and direction of each
/// buffer.
type Popped = (u16, Vec<(u64, u32, bool)>);

struct Ours(Side, Queue);
struct Theirs(Side, TheirQueue);

impl Ours {
    fn pop(&mut self) -> Option<Popped> {
        let mut chain = Chain::default();
        if !self.1.pop(&mut chain).unwrap() {
            return None;
        }
        let mut buffers = Vec::new();
        for (segments, write) in [(&chain.readable, false), (&chain.writable, true)] {
            let all = segments.range(0, segments.len());
            buffers.extend(all.map(|s| (s.addr.0 ^ self.0.swap, s.len, write)));
        }
        Some((chain.head, buffers))
    }
}

impl Theirs {
    fn new(side: Side, features: u64, start: u16) -> Self {
        let layout = side.ring.layout();
        let mut queue = TheirQueue::new(SIZE).unwrap();
        queue.try_set_desc_table_address(layout.desc).unwrap();
        queue.try_set_avail_ring_address(layout.avail).unwrap();
        queue.try_set_used_ring_address(layout.used).unwrap();
        queue.set_event_idx(features & EVENT_IDX != 0);
        queue.set_next_avail(start);
        queue.set_next_used(start);
        queue.set_ready(true);
        Self(side, queue)
    }

    fn pop(&mut self) -> Option<Popped> {
        let chain = self.1.pop_descriptor_chain(self.0.memory.clone())?;
        let head = chain.head_index();
        let buffer =
            |d: virtio_queue::desc::split::Descriptor| (d.addr().0, d.len(), d.is_write_only());
        Some((head, chain.map(buffer).collect()))
    }
}

proptest! {
    #[test]
    fn agrees_with_virtio_queue(
        events in proptest::collection::vec(event(), 1..200),
        event_idx in any::<bool>(),
        near_wrap in any::<bool>(),
        behind_iommu in any::<bool>(),
    ) {
        let features = RING_FEATURES & !if event_idx { 0 } else { EVENT_IDX };
        let start = if near_wrap { u16::MAX - 5 } else { 0 };
        let side = Side::new(near_wrap, behind_iommu);
        let queue = Queue::new(side.memory.clone(), side.ring.layout(), features, start);
        let mut ours = Ours(side, queue.unwrap());
        let mut theirs = Theirs::new(Side::new(near_wrap, false), features, start);
        let memory = theirs.0.memory.clone();
        let (mut waiting, mut taken) = (0, std::collections::VecDeque::new());
        for event in events {
            match event {
                // A correct driver has at most `CHAINS` chains in flight, because more chains might
                // not fit the ring.
                Event::Add(..) if waiting + taken.len() == CHAINS => {}
                Event::Add(out, into, table) => {
                    ours.0.add(out, into, table);
                    theirs.0.add(out, into, table);
                    waiting += 1;
                }
                Event::CallAt(index) => {
                    let index = start.wrapping_add(index);
                    ours.0.ring.set_used_event(index);
                    theirs.0.ring.set_used_event(index);
                }
                Event::Pop => {
                    let popped = ours.pop();
                    prop_assert_eq!(&popped, &theirs.pop());
                    prop_assert_eq!(popped.is_some(), waiting > 0);
                    waiting -= usize::from(popped.is_some());
                    taken.extend(popped.map(|(head, _)| head));
                }
                Event::Push(written) => {
                    let Some(head) = taken.pop_front() else { continue };
                    ours.1.push_used(head, written).unwrap();
                    theirs.1.add_used(memory.as_ref(), head, written).unwrap();
                }
                Event::DecideCall => {
                    let decided = ours.1.needs_call().unwrap();
                    let reference = theirs.1.needs_notification(memory.as_ref()).unwrap();
                    // Without EVENT_IDX, virtio-queue always answers that a notification is needed.
                    prop_assert!(!event_idx || decided == reference);
                }
                Event::EnableKick => {
                    let more = ours.1.enable_kick().unwrap();
                    prop_assert_eq!(more, theirs.1.enable_notification(memory.as_ref()).unwrap());
                    prop_assert_eq!(ours.0.ring.avail_event(), theirs.0.ring.avail_event());
                }
                Event::DisableKick => {
                    ours.1.disable_kick().unwrap();
                    theirs.1.disable_notification(memory.as_ref()).unwrap();
                }
            }
            ours.1.publish().unwrap();
            prop_assert_eq!(ours.0.ring.pop_used(), theirs.0.ring.pop_used());
            prop_assert_eq!(ours.0.ring.used_flags(), theirs.0.ring.used_flags());
            prop_assert_eq!(ours.1.next_avail(), theirs.1.next_avail());
        }
    }
}
