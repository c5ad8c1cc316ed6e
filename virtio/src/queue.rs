//! The device side of a split virtqueue (virtio 1.2, section 2.7).
//!
//! Tests check it against virtio-queue.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC, VRING_AVAIL_F_NO_INTERRUPT,
    VRING_USED_F_NO_NOTIFY,
};
use vm_memory::GuestMemoryError;

use crate::ring::Ring;
use crate::{Chain, GuestMemory, VringLayout};

mod walk;

use walk::Source;

/// The features of a split ring that [`SplitQueue`] serves.
pub const RING_FEATURES: u64 = (1 << VIRTIO_RING_F_EVENT_IDX) | (1 << VIRTIO_RING_F_INDIRECT_DESC);

/// Longest chain taken from an indirect table: drivers size these by the device's segment limit
/// rather than by the queue, and the kernel takes no more buffers than this in one call.
pub const MAX_INDIRECT: u16 = 1024;

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
}

/// A split virtqueue that hands out checked chains.
#[derive(Debug)]
pub struct SplitQueue {
    ring: Ring,
    memory: Arc<GuestMemory>,
    size: u16,
    indirect: bool,
    event_idx: bool,
    /// The first request not taken yet.
    next_avail: u16,
    /// The available index as last read: requests before it can be taken without another look.
    avail_index: u16,
    /// Where the next used buffer goes.
    next_used: u16,
    /// The used index that the driver sees.
    published: u16,
    /// The used index when it was last asked whether the driver wants to be called.
    decided: u16,
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
        let ring = Ring::new(&memory, layout)?;
        let next_used = ring.used_index()?;
        Ok(Self {
            ring,
            memory,
            size: layout.size,
            indirect: features & (1 << VIRTIO_RING_F_INDIRECT_DESC) != 0,
            event_idx: features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0,
            next_avail,
            avail_index: next_avail,
            next_used,
            published: next_used,
            decided: next_used,
        })
    }

    /// The memory that this queue and its buffers are in.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Index in the available ring of the first request not taken yet.
    pub fn next_avail(&self) -> u16 {
        self.next_avail
    }

    /// Takes the next request into `chain`; false when there is none.
    ///
    /// # Errors
    ///
    /// A broken ring, in which case the request stays untaken and the queue should be given up.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, QueueError> {
        if self.avail_index == self.next_avail && !self.look()? {
            return Ok(false);
        }
        chain.clear(self.ring.avail_entry(self.next_avail)?);
        self.source().walk(chain)?;
        // From here on, whoever takes memory away sees its use, or this queue sees that it is gone.
        self.memory.hold(chain);
        self.next_avail = self.next_avail.wrapping_add(1);
        Ok(true)
    }

    /// Whether there are requests to take; cheap enough to be asked over and over.
    ///
    /// # Errors
    ///
    /// When the available ring is no longer inside memory.
    pub fn has_requests(&self) -> Result<bool, QueueError> {
        Ok(self.avail_index != self.next_avail || self.ring.avail_index()? != self.next_avail)
    }

    /// Gives the chain with this head back after `written` bytes were written to it. The driver
    /// does not see it before [`SplitQueue::publish`].
    ///
    /// # Errors
    ///
    /// When the used ring is no longer inside memory.
    pub fn push_used(&mut self, head: u16, written: u32) -> Result<(), QueueError> {
        self.memory.release(head);
        self.ring.set_used_entry(self.next_used, head, written)?;
        self.next_used = self.next_used.wrapping_add(1);
        Ok(())
    }

    /// Shows the driver what was pushed.
    ///
    /// # Errors
    ///
    /// When the used ring is no longer inside memory.
    pub fn publish(&mut self) -> Result<(), QueueError> {
        if self.published != self.next_used {
            self.ring.set_used_index(self.next_used)?;
            self.published = self.next_used;
        }
        Ok(())
    }

    /// Shows the driver what was pushed, and says whether it wants to be told of what it was shown
    /// since the last time.
    ///
    /// # Errors
    ///
    /// When the rings are no longer inside memory.
    pub fn needs_call(&mut self) -> Result<bool, QueueError> {
        self.publish()?;
        let before = std::mem::replace(&mut self.decided, self.published);
        if before == self.published {
            return Ok(false);
        }
        // The driver writes what it wants and then reads the index, we the other way round.
        fence(Ordering::SeqCst);
        if !self.event_idx {
            return Ok(self.ring.avail_flags()? & VRING_AVAIL_F_NO_INTERRUPT as u16 == 0);
        }
        // Virtio 1.2, section 2.7.7.2: when the entry at used_event is among the new ones.
        let new = self.published.wrapping_sub(before);
        let age = self.published.wrapping_sub(self.ring.used_event()?);
        Ok(age.wrapping_sub(1) < new)
    }

    /// Asks the driver not to kick while the queue is being worked on.
    ///
    /// # Errors
    ///
    /// When the used ring is no longer inside memory.
    pub fn disable_kick(&mut self) -> Result<(), QueueError> {
        match self.event_idx {
            // The index of the last kick is behind, which no driver crosses soon.
            true => Ok(()),
            false => self.ring.set_used_flags(VRING_USED_F_NO_NOTIFY as u16),
        }
    }

    /// Asks the driver to kick again; true when there are requests already, for which it may not.
    ///
    /// # Errors
    ///
    /// When the rings are no longer inside memory.
    pub fn enable_kick(&mut self) -> Result<bool, QueueError> {
        match self.event_idx {
            true => self.ring.set_avail_event(self.next_avail)?,
            false => self.ring.set_used_flags(0)?,
        }
        // The driver writes its index and then reads what we want, we the other way round.
        fence(Ordering::SeqCst);
        self.has_requests()
    }

    /// Reads the available index; false when there is nothing new.
    fn look(&mut self) -> Result<bool, QueueError> {
        let (next, index, size) = (self.next_avail, self.ring.avail_index()?, self.size);
        if index.wrapping_sub(next) > size {
            return Err(QueueError::AvailIndex { next, index, size });
        }
        self.avail_index = index;
        Ok(index != next)
    }

    fn source(&self) -> Source<'_> {
        Source {
            ring: &self.ring,
            memory: &self.memory,
            size: self.size,
            indirect: self.indirect,
        }
    }
}

#[cfg(test)]
mod tests;
