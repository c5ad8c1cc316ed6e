//! The three parts of a split virtqueue (virtio 1.2, section 2.7). Each field is read or written by
//! one load or store.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::GuestAddress;

use super::descriptor::{Descriptor, Layout};
use super::part::{Part, WritablePart};
use crate::{GuestMemory, QueueError, VringLayout};

/// A split virtqueue in the driver's memory.
#[derive(Debug)]
pub(crate) struct SplitRing {
    descriptors: Part<u64>,
    /// The available ring: flags, index, entries and used_event.
    avail: Part<u16>,
    /// The first two fields of the used ring: flags and index.
    used: WritablePart<u16>,
    /// The entries of the used ring. Each entry has the head of a chain and a length in bytes.
    used_entries: WritablePart<u32>,
    avail_event: WritablePart<u16>,
    size: u16,
}

impl SplitRing {
    /// Checks a layout, and finds the parts of the virtqueue in memory.
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
        let fits = layout.size.is_power_of_two() && aligned;
        let found = if fits { find() } else { None };
        found.ok_or(QueueError::BadLayout(layout))
    }

    /// Entry `index` of the descriptor table. The index has to be below the queue's size.
    pub fn descriptor(&self, index: u16) -> Result<Descriptor, QueueError> {
        let at = 2 * usize::from(index);
        let first = self.descriptors.load(at, Ordering::Relaxed)?;
        let second = self.descriptors.load(at + 1, Ordering::Relaxed)?;
        Ok(Descriptor::decode(Layout::Split, [first, second]))
    }

    /// The available ring's flags.
    pub fn avail_flags(&self) -> Result<u16, QueueError> {
        Ok(u16::from_le(self.avail.load(0, Ordering::Relaxed)?))
    }

    /// The available index. Later loads see all data that the driver stored before it stored the
    /// index.
    pub fn avail_index(&self) -> Result<u16, QueueError> {
        Ok(u16::from_le(self.avail.load(1, Ordering::Acquire)?))
    }

    /// The head of the chain at `index` of the available ring. The index may be any 16-bit number.
    /// The number of the entry is `index` modulo the ring's size.
    pub fn avail_entry(&self, index: u16) -> Result<u16, QueueError> {
        let at = 2 + self.slot(index);
        Ok(u16::from_le(self.avail.load(at, Ordering::Relaxed)?))
    }

    /// The used index at which the driver wants a call.
    pub fn used_event(&self) -> Result<u16, QueueError> {
        let at = 2 + usize::from(self.size);
        Ok(u16::from_le(self.avail.load(at, Ordering::Relaxed)?))
    }

    /// The used index.
    pub fn used_index(&self) -> Result<u16, QueueError> {
        Ok(u16::from_le(self.used.load(1, Ordering::Relaxed)?))
    }

    /// Stores an entry at `index` of the used ring. The index may be any 16-bit number. The number
    /// of the entry is `index` modulo the ring's size.
    pub fn set_used_entry(&self, index: u16, head: u16, written: u32) -> Result<(), QueueError> {
        let at = 2 * self.slot(index);
        let order = Ordering::Relaxed;
        self.used_entries
            .store(at, u32::from(head).to_le(), order)?;
        self.used_entries.store(at + 1, written.to_le(), order)
    }

    /// Sets the used index. A driver that sees this index also sees all entries before it, and all
    /// data that the device wrote earlier.
    pub fn set_used_index(&self, index: u16) -> Result<(), QueueError> {
        self.used.store(1, index.to_le(), Ordering::Release)
    }

    /// Sets the used ring's flags.
    pub fn set_used_flags(&self, flags: u16) -> Result<(), QueueError> {
        self.used.store(0, flags.to_le(), Ordering::Relaxed)
    }

    /// Sets the available index at which the device wants a kick.
    pub fn set_avail_event(&self, index: u16) -> Result<(), QueueError> {
        self.avail_event.store(0, index.to_le(), Ordering::Relaxed)
    }

    fn slot(&self, index: u16) -> usize {
        usize::from(index & (self.size - 1))
    }
}
