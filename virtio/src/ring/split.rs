//! The three parts of a split virtqueue (virtio 1.2, section 2.7), with one access for each field.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress};

use super::DESCRIPTOR_SIZE;
use super::part::Part;
use crate::{GuestMemory, QueueError, Segment, VringLayout};

/// A descriptor as the driver wrote it, copied once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub buffer: Segment,
    pub flags: u16,
    pub next: u16,
}

impl Descriptor {
    /// From its two halves as they are in memory.
    fn from_halves(addr: u64, rest: u64) -> Self {
        let rest = u64::from_le(rest);
        Self {
            buffer: Segment {
                addr: GuestAddress(u64::from_le(addr)),
                len: rest as u32,
            },
            flags: (rest >> 32) as u16,
            next: (rest >> 48) as u16,
        }
    }

    /// Entry `index` of an indirect table that begins at `table`.
    pub fn read(memory: &GuestMemory, table: GuestAddress, index: u16) -> Result<Self, QueueError> {
        let offset = u64::from(index) * DESCRIPTOR_SIZE;
        let addr = GuestAddress(table.0.wrapping_add(offset));
        let [first, second]: [u64; 2] = memory.read_obj(addr)?;
        Ok(Self::from_halves(first, second))
    }
}

/// A split virtqueue's memory.
#[derive(Debug)]
pub(crate) struct SplitRing {
    descriptors: Part<u64>,
    /// Flags, index, entries, used_event.
    avail: Part<u16>,
    /// Flags and index.
    used: Part<u16>,
    /// Identity and length of each entry.
    used_entries: Part<u32>,
    avail_event: Part<u16>,
    size: u16,
}

impl SplitRing {
    /// Checks a layout and finds its parts.
    pub fn new(memory: &Arc<GuestMemory>, layout: VringLayout) -> Result<Self, QueueError> {
        let size = usize::from(layout.size);
        let part = |addr: GuestAddress, offset: usize| addr.0.checked_add(offset as u64);
        let find = || {
            Some(Self {
                descriptors: Part::new(memory, layout.desc.0, 2 * size)?,
                avail: Part::new(memory, layout.avail.0, 3 + size)?,
                used: Part::new(memory, layout.used.0, 2)?,
                used_entries: Part::new(memory, part(layout.used, 4)?, 2 * size)?,
                avail_event: Part::new(memory, part(layout.used, 4 + 8 * size)?, 1)?,
                size: layout.size,
            })
        };
        let parts = [(layout.desc, 16), (layout.avail, 2), (layout.used, 4)];
        let aligned = parts.iter().all(|(addr, to)| addr.0.is_multiple_of(*to));
        match layout.size.is_power_of_two() && aligned {
            true => find().ok_or(QueueError::BadLayout(layout)),
            false => Err(QueueError::BadLayout(layout)),
        }
    }

    /// Entry `index` of the descriptor table, which has to be below the queue's size.
    pub fn descriptor(&self, index: u16) -> Result<Descriptor, QueueError> {
        let at = 2 * usize::from(index);
        let first = self.descriptors.load(at, Ordering::Relaxed)?;
        let second = self.descriptors.load(at + 1, Ordering::Relaxed)?;
        Ok(Descriptor::from_halves(first, second))
    }

    /// The available ring's flags.
    pub fn avail_flags(&self) -> Result<u16, QueueError> {
        Ok(u16::from_le(self.avail.load(0, Ordering::Relaxed)?))
    }

    /// The available ring's index; what the driver wrote before it is seen after it.
    pub fn avail_index(&self) -> Result<u16, QueueError> {
        Ok(u16::from_le(self.avail.load(1, Ordering::Acquire)?))
    }

    /// The head that the driver put at `index`, which counts on without end.
    pub fn avail_entry(&self, index: u16) -> Result<u16, QueueError> {
        let at = 2 + self.slot(index);
        Ok(u16::from_le(self.avail.load(at, Ordering::Relaxed)?))
    }

    /// Where in the used ring the driver wants to be called.
    pub fn used_event(&self) -> Result<u16, QueueError> {
        let at = 2 + usize::from(self.size);
        Ok(u16::from_le(self.avail.load(at, Ordering::Relaxed)?))
    }

    /// The used ring's index.
    pub fn used_index(&self) -> Result<u16, QueueError> {
        Ok(u16::from_le(self.used.load(1, Ordering::Relaxed)?))
    }

    /// Puts an entry at `index`, which counts on without end.
    pub fn set_used_entry(&self, index: u16, head: u16, written: u32) -> Result<(), QueueError> {
        let at = 2 * self.slot(index);
        let order = Ordering::Relaxed;
        self.used_entries
            .store(at, u32::from(head).to_le(), order)?;
        self.used_entries.store(at + 1, written.to_le(), order)
    }

    /// Shows all entries before `index` to the driver.
    pub fn set_used_index(&self, index: u16) -> Result<(), QueueError> {
        self.used.store(1, index.to_le(), Ordering::Release)
    }

    /// Sets the used ring's flags.
    pub fn set_used_flags(&self, flags: u16) -> Result<(), QueueError> {
        self.used.store(0, flags.to_le(), Ordering::Relaxed)
    }

    /// Says where in the available ring a kick is wanted.
    pub fn set_avail_event(&self, index: u16) -> Result<(), QueueError> {
        self.avail_event.store(0, index.to_le(), Ordering::Relaxed)
    }

    fn slot(&self, index: u16) -> usize {
        usize::from(index & (self.size - 1))
    }
}
