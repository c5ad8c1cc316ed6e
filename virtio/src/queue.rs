//! The device side of a split virtqueue (virtio 1.2, section 2.7).
//!
//! Ring indices and notification suppression are virtio-queue's; the walk along a descriptor chain
//! is ours, because the driver may lie anywhere in it and has to be told so.

use std::num::Wrapping;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use virtio_bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC, VRING_AVAIL_F_NO_INTERRUPT,
    VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::{Chain, GuestMemory, Segment, VringLayout};

/// The features of a split ring that [`SplitQueue`] serves.
pub const RING_FEATURES: u64 = (1 << VIRTIO_RING_F_EVENT_IDX) | (1 << VIRTIO_RING_F_INDIRECT_DESC);

/// Longest chain taken from an indirect table: drivers size these by the device's segment limit
/// rather than by the queue, and the kernel takes no more buffers than this in one call.
pub const MAX_INDIRECT: u16 = 1024;

const DESCRIPTOR_SIZE: u64 = size_of::<Descriptor>() as u64;

/// A vring that is broken beyond the request at hand: nothing more can be served from it.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Size is no power of two, or an address is misaligned or outside memory.
    #[error("vring of {} descriptors at desc {:#x}, avail {:#x}, used {:#x} does not fit memory \
             or is misaligned", .0.size, .0.desc.0, .0.avail.0, .0.used.0)]
    BadLayout(VringLayout),
    /// The available index moved by more than the queue's size.
    #[error("available index jumped from {next} to {index} in a queue of {size}")]
    AvailIndex {
        /// The first request not taken yet.
        next: u16,
        /// What the driver wrote.
        index: u16,
        /// The queue's size.
        size: u16,
    },
    /// A descriptor index is not below its table's length.
    #[error("descriptor index {index} is outside its table of {len}")]
    DescriptorIndex {
        /// The index as found in the available ring or in a `next` field.
        index: u16,
        /// Entries in the table.
        len: u32,
    },
    /// A chain has more descriptors than it may, so it has a loop or breaks the specification.
    #[error("descriptor chain has more than {0} descriptors")]
    ChainTooLong(u16),
    /// An indirect descriptor without the feature, inside an indirect table, or with NEXT or WRITE.
    #[error("indirect descriptor where none is allowed")]
    BadIndirect,
    /// An indirect table whose length is zero or no multiple of a descriptor's size.
    #[error("indirect table of {0} bytes")]
    IndirectLength(u32),
    /// A device-readable buffer after a device-writable one.
    #[error("device-readable buffer after a device-writable one")]
    Order,
    /// A ring or table is (no longer) inside memory.
    #[error("cannot access the vring: {0}")]
    Memory(#[from] GuestMemoryError),
    /// virtio-queue refused an operation.
    #[error("cannot access the vring: {0}")]
    Ring(#[from] virtio_queue::Error),
}

/// A split virtqueue that hands out checked chains.
#[derive(Debug)]
pub struct SplitQueue {
    queue: Queue,
    memory: Arc<GuestMemory>,
    layout: VringLayout,
    indirect: bool,
    event_idx: bool,
}

impl SplitQueue {
    /// Takes a queue over at `next_avail`, with everything before it already used.
    ///
    /// # Errors
    ///
    /// [`QueueError::BadLayout`] or an unreadable used index.
    pub fn new(
        memory: Arc<GuestMemory>,
        layout: VringLayout,
        features: u64,
        next_avail: u16,
    ) -> Result<Self, QueueError> {
        let event_idx = features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0;
        let bad_layout = |_| QueueError::BadLayout(layout);
        let mut queue = Queue::new(layout.size).map_err(bad_layout)?;
        queue
            .try_set_desc_table_address(layout.desc)
            .map_err(bad_layout)?;
        queue
            .try_set_avail_ring_address(layout.avail)
            .map_err(bad_layout)?;
        queue
            .try_set_used_ring_address(layout.used)
            .map_err(bad_layout)?;
        queue.set_event_idx(event_idx);
        queue.set_next_avail(next_avail);
        queue.set_ready(true);
        if !queue.is_valid(memory.as_ref()) {
            return Err(QueueError::BadLayout(layout));
        }
        let next_used = queue.used_idx(memory.as_ref(), Ordering::Acquire)?;
        queue.set_next_used(next_used.0);
        let indirect = features & (1 << VIRTIO_RING_F_INDIRECT_DESC) != 0;
        Ok(Self {
            queue,
            memory,
            layout,
            indirect,
            event_idx,
        })
    }

    /// The memory that this queue and its buffers are in.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.layout.size
    }

    /// Index in the available ring of the first request not taken yet.
    pub fn next_avail(&self) -> u16 {
        self.queue.next_avail()
    }

    /// Takes the next request into `chain`; false when there is none.
    ///
    /// # Errors
    ///
    /// A broken ring, in which case the request stays untaken and the queue should be given up.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, QueueError> {
        let next = self.queue.next_avail();
        let index = self
            .queue
            .avail_idx(self.memory.as_ref(), Ordering::Acquire)?
            .0;
        if index == next {
            return Ok(false);
        }
        if (Wrapping(index) - Wrapping(next)).0 > self.layout.size {
            return Err(QueueError::AvailIndex {
                next,
                index,
                size: self.layout.size,
            });
        }
        let slot = 4 + 2 * u64::from(next % self.layout.size);
        let head = u16::from_le(
            self.memory
                .read_obj(GuestAddress(self.layout.avail.0 + slot))?,
        );
        chain.clear(head);
        self.walk(chain)?;
        // From here on, whoever takes memory away sees its use, or this queue sees that it is gone.
        self.memory.hold(chain);
        self.queue.set_next_avail(next.wrapping_add(1));
        Ok(true)
    }

    /// Gives the chain with this head back after `written` bytes were written to it.
    ///
    /// # Errors
    ///
    /// When the used ring is no longer inside memory.
    pub fn push_used(&mut self, head: u16, written: u32) -> Result<(), QueueError> {
        self.memory.release(head);
        Ok(self.queue.add_used(self.memory.as_ref(), head, written)?)
    }

    /// Whether the driver wants to be told of what was pushed since the last call.
    ///
    /// # Errors
    ///
    /// When the available ring is no longer inside memory.
    pub fn needs_call(&mut self) -> Result<bool, QueueError> {
        if self.queue.needs_notification(self.memory.as_ref())? {
            return Ok(self.event_idx || !self.interrupts_suppressed()?);
        }
        Ok(false)
    }

    /// Asks the driver not to kick while the queue is being worked on.
    ///
    /// # Errors
    ///
    /// When the used ring is no longer inside memory.
    pub fn disable_kick(&mut self) -> Result<(), QueueError> {
        Ok(self.queue.disable_notification(self.memory.as_ref())?)
    }

    /// Asks the driver to kick again; true when there are requests already, for which it may not.
    ///
    /// # Errors
    ///
    /// When the rings are no longer inside memory.
    pub fn enable_kick(&mut self) -> Result<bool, QueueError> {
        Ok(self.queue.enable_notification(self.memory.as_ref())?)
    }

    fn interrupts_suppressed(&self) -> Result<bool, QueueError> {
        let flags: u16 = self.memory.load(self.layout.avail, Ordering::Relaxed)?;
        Ok(u16::from_le(flags) & VRING_AVAIL_F_NO_INTERRUPT as u16 != 0)
    }

    fn walk(&self, chain: &mut Chain) -> Result<(), QueueError> {
        let table = Table {
            start: self.layout.desc,
            len: u32::from(self.layout.size),
        };
        let mut walk = Walk {
            memory: &self.memory,
            budget: self.layout.size,
            chain,
        };
        let head = walk.chain.head;
        let first = table.get(walk.memory, head)?;
        if first.flags() & VRING_DESC_F_INDIRECT as u16 == 0 {
            return walk.along(table, head);
        }
        walk.budget = walk.budget.max(MAX_INDIRECT);
        // A chain has either one indirect table or none: this also rules out NEXT beside INDIRECT.
        let allowed = first.flags() == VRING_DESC_F_INDIRECT as u16;
        if !self.indirect || !allowed {
            return Err(QueueError::BadIndirect);
        }
        walk.along(Table::indirect(&first)?, 0)
    }
}

/// A descriptor table in the driver's memory.
#[derive(Clone, Copy)]
struct Table {
    start: GuestAddress,
    len: u32,
}

impl Table {
    fn indirect(descriptor: &Descriptor) -> Result<Self, QueueError> {
        let bytes = descriptor.len();
        if bytes == 0 || u64::from(bytes) % DESCRIPTOR_SIZE != 0 {
            return Err(QueueError::IndirectLength(bytes));
        }
        Ok(Self {
            start: descriptor.addr(),
            len: bytes / DESCRIPTOR_SIZE as u32,
        })
    }

    fn get(&self, memory: &GuestMemory, index: u16) -> Result<Descriptor, QueueError> {
        if u32::from(index) >= self.len {
            return Err(QueueError::DescriptorIndex {
                index,
                len: self.len,
            });
        }
        let offset = u64::from(index) * DESCRIPTOR_SIZE;
        let addr = GuestAddress(self.start.0.wrapping_add(offset));
        Ok(memory.read_obj(addr)?)
    }
}

/// One pass over a chain, with a bound on its length.
struct Walk<'a> {
    memory: &'a GuestMemory,
    budget: u16,
    chain: &'a mut Chain,
}

impl Walk<'_> {
    fn along(&mut self, table: Table, first: u16) -> Result<(), QueueError> {
        let mut index = first;
        for _ in 0..self.budget {
            let descriptor = table.get(self.memory, index)?;
            self.take(&descriptor)?;
            if descriptor.flags() & VRING_DESC_F_NEXT as u16 == 0 {
                return Ok(());
            }
            index = descriptor.next();
        }
        Err(QueueError::ChainTooLong(self.budget))
    }

    fn take(&mut self, descriptor: &Descriptor) -> Result<(), QueueError> {
        let segment = Segment {
            addr: descriptor.addr(),
            len: descriptor.len(),
        };
        if descriptor.flags() & VRING_DESC_F_INDIRECT as u16 != 0 {
            return Err(QueueError::BadIndirect);
        }
        if descriptor.flags() & VRING_DESC_F_WRITE as u16 != 0 {
            self.chain.writable.push(segment);
            return Ok(());
        }
        if !self.chain.writable.is_empty() {
            return Err(QueueError::Order);
        }
        self.chain.readable.push(segment);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
