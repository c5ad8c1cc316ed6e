//! The driver's side of a packed virtqueue.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use vm_memory::{ByteValued, Bytes, GuestAddress};

use super::{INDIRECT, NEXT, WRITE};
use crate::{GuestMemory, VringLayout};

/// Descriptor flag: the descriptor was made available in a lap with wrap counter 1.
pub const AVAIL: u16 = 1 << 7;
/// Descriptor flag: the descriptor was last used in a lap with wrap counter 1.
pub const USED: u16 = 1 << 15;

/// Event flags: notify for each descriptor.
pub const EVENT_ENABLE: u16 = 0;
/// Event flags: never notify.
pub const EVENT_DISABLE: u16 = 1;
/// Event flags: notify for the descriptor whose position is in the other field of the event
/// structure.
pub const EVENT_DESC: u16 = 2;

/// An index in the descriptor ring, and the wrap counter, which changes with each lap around the
/// ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    index: u16,
    wrap: bool,
}

impl Place {
    fn after(self, count: u16, size: u16) -> Self {
        let index = u32::from(self.index) + u32::from(count);
        let wrap = self.wrap != (index >= u32::from(size));
        let index = (index % u32::from(size)) as u16;
        Self { index, wrap }
    }

    fn encode(self) -> u16 {
        self.index | u16::from(self.wrap) << 15
    }
}

/// The driver's side of a packed virtqueue. Tests can also break the rules of virtio with it.
#[derive(Debug)]
pub struct PackedDriverRing {
    memory: Arc<GuestMemory>,
    layout: VringLayout,
    next: Place,
    used: Place,
    free_ids: Vec<u16>,
    /// The number of ring descriptors of each chain in flight. The index is the chain's buffer id.
    lengths: Vec<u16>,
    /// The number of descriptors added since the last call of [`PackedDriverRing::wants_kick`].
    added: u16,
}

impl PackedDriverRing {
    /// A ring of `size` descriptors that begins at the address `base`. `base` has to be aligned to
    /// 16 bytes. The ring takes `16 * size + 8` bytes.
    pub fn new(memory: Arc<GuestMemory>, base: u64, size: u16) -> Self {
        let driver = base + 16 * u64::from(size);
        let layout = VringLayout {
            packed: true,
            size,
            desc: GuestAddress(base),
            avail: GuestAddress(driver),
            used: GuestAddress(driver + 4),
        };
        let first = Place {
            index: 0,
            wrap: true,
        };
        Self {
            memory,
            layout,
            next: first,
            used: first,
            free_ids: (0..size).collect(),
            lengths: vec![0; size.into()],
            added: 0,
        }
    }

    /// The layout of the ring.
    pub fn layout(&self) -> VringLayout {
        self.layout
    }

    /// The position of the next chain, in the encoding of
    /// [`Vring::next_avail`](crate::Vring::next_avail).
    pub fn position(&self) -> u16 {
        self.next.encode()
    }

    /// Number of ring descriptors that are not in flight.
    pub fn room(&self) -> u16 {
        self.layout.size - self.lengths.iter().sum::<u16>()
    }

    /// Writes entry `index` of the ring or table at the address `table`. The entry is (address,
    /// length, buffer id, flags).
    pub fn write_descriptor(&self, table: GuestAddress, index: u16, entry: (u64, u32, u16, u16)) {
        let (addr, len, id, flags) = entry;
        let at = table.0 + 16 * u64::from(index);
        self.put(addr.to_le(), at);
        self.put(len.to_le(), at + 8);
        self.put(id.to_le(), at + 12);
        fence(Ordering::SeqCst);
        self.put(flags.to_le(), at + 14);
    }

    /// Adds a chain of (address, length, writable?) buffers, and returns the chain's buffer id.
    ///
    /// # Panics
    ///
    /// When `buffers` is empty or all buffer ids are in flight.
    pub fn add(&mut self, buffers: &[(u64, u32, bool)]) -> u16 {
        let id = self.free_ids.pop().expect("a chain of them is free");
        self.add_as(id, buffers);
        self.lengths[usize::from(id)] = buffers.len() as u16;
        id
    }

    /// Adds a chain with the buffer id `id`, which may be invalid.
    ///
    /// # Panics
    ///
    /// When `buffers` is empty.
    pub fn add_as(&mut self, id: u16, buffers: &[(u64, u32, bool)]) {
        let last = buffers.len() - 1;
        let entries: Vec<_> = buffers
            .iter()
            .enumerate()
            .map(|(n, &(addr, len, writable))| {
                let more = if n < last { NEXT } else { 0 };
                // The device uses only the buffer id in the chain's last descriptor.
                let id = if n < last { !id } else { id };
                (addr, len, id, more | if writable { WRITE } else { 0 })
            })
            .collect();
        self.add_entries(&entries);
    }

    /// Writes an indirect table with the buffers at the address `table`, and adds a chain with this
    /// table. Returns the chain's buffer id.
    ///
    /// # Panics
    ///
    /// When all buffer ids are in flight.
    pub fn add_indirect(&mut self, table: u64, buffers: &[(u64, u32, bool)]) -> u16 {
        for (index, &(addr, len, writable)) in (0..).zip(buffers) {
            // Flags other than WRITE are reserved in a table, and the device has to ignore them.
            let flags = if writable { WRITE } else { 0 } | AVAIL | NEXT;
            self.write_descriptor(GuestAddress(table), index, (addr, len, 0xabcd, flags));
        }
        let id = self.free_ids.pop().expect("a chain is free");
        self.add_entries(&[(table, 16 * buffers.len() as u32, id, INDIRECT)]);
        self.lengths[usize::from(id)] = 1;
        id
    }

    /// Makes descriptors available. Writes the first descriptor last, so that the device sees
    /// either all of them or none. Each entry is (address, length, buffer id, flags). This method
    /// adds the AVAIL and USED flags of the current lap.
    pub fn add_entries(&mut self, entries: &[(u64, u32, u16, u16)]) {
        let size = self.layout.size;
        for (n, &(addr, len, id, flags)) in entries.iter().enumerate().rev() {
            let place = self.next.after(n as u16, size);
            let lap = if place.wrap { AVAIL } else { USED };
            let entry = (addr, len, id, flags | lap);
            self.write_descriptor(self.layout.desc, place.index, entry);
        }
        self.next = self.next.after(entries.len() as u16, size);
        self.added += entries.len() as u16;
    }

    /// The next chain that the device has used: its buffer id, and the number of bytes written to
    /// it. `None` if the device has used no further chain.
    ///
    /// # Panics
    ///
    /// When the device uses a chain that is not in flight, or gives a length that does not fit its
    /// flags.
    pub fn pop_used(&mut self) -> Option<(u32, u32)> {
        let at = self.layout.desc.0 + 16 * u64::from(self.used.index);
        let flags = u16::from_le(self.get(at + 14));
        let lap = if self.used.wrap { AVAIL | USED } else { 0 };
        if flags & (AVAIL | USED) != lap {
            return None;
        }
        fence(Ordering::SeqCst);
        let (written, id) = (
            u32::from_le(self.get(at + 8)),
            u16::from_le(self.get(at + 12)),
        );
        assert_eq!(
            flags & WRITE != 0,
            written > 0,
            "WRITE says whether the length counts"
        );
        let length = std::mem::take(&mut self.lengths[usize::from(id)]);
        assert!(length > 0, "chain {id} is not in flight");
        self.used = self.used.after(length, self.layout.size);
        self.free_ids.push(id);
        Some((id.into(), written))
    }

    /// Sets the condition for a call to the driver: one of the event flags, and a position.
    pub fn set_event(&self, flags: u16, position: u16) {
        let event = u32::from(flags) << 16 | u32::from(position);
        self.put(event.to_le(), self.layout.avail.0);
    }

    /// Asks for a call at the next used buffer.
    pub fn ask_for_call(&self, event_idx: bool) {
        let flags = if event_idx { EVENT_DESC } else { EVENT_ENABLE };
        self.set_event(flags, self.used.encode());
        fence(Ordering::SeqCst);
    }

    /// The device's condition for a kick: one of the event flags, and a position.
    pub fn device_event(&self) -> (u16, u16) {
        let event = u32::from_le(self.get(self.layout.used.0));
        ((event >> 16) as u16, event as u16)
    }

    /// Whether the device wants a kick for the chains that were added since the previous call of
    /// this method.
    pub fn wants_kick(&mut self) -> bool {
        fence(Ordering::SeqCst);
        let added = i32::from(std::mem::take(&mut self.added));
        let (flags, position) = self.device_event();
        match flags {
            EVENT_ENABLE => true,
            EVENT_DESC => {
                let same_lap = (position >> 15 != 0) == self.next.wrap;
                let lap = if same_lap { 0 } else { self.layout.size };
                let behind =
                    i32::from(self.next.index) + i32::from(lap) - i32::from(position & 0x7fff);
                (1..=added).contains(&behind)
            }
            _ => false,
        }
    }

    fn put<T: ByteValued>(&self, value: T, addr: u64) {
        self.memory
            .write_obj(value, GuestAddress(addr))
            .expect("ring inside memory");
    }

    fn get<T: ByteValued>(&self, addr: u64) -> T {
        self.memory
            .read_obj(GuestAddress(addr))
            .expect("ring inside memory")
    }
}
