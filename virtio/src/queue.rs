//! The device side of a virtqueue (virtio 1.2, section 2.6).

use std::sync::Arc;

use virtio_bindings::virtio_config::{VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::GuestMemoryError;

use crate::{Chain, GuestMemory, VringLayout};

mod order;
mod packed;
mod split;
mod walk;

use order::Order;
use packed::PackedQueue;
use split::SplitQueue;

/// The features that a ring of either layout has with [`Queue`].
pub const RING_FEATURES: u64 = (1 << VIRTIO_RING_F_EVENT_IDX) | (1 << VIRTIO_RING_F_INDIRECT_DESC);

/// The feature of packed virtqueues, which [`Queue`] serves, too; see [`VringLayout::packed`].
pub const PACKED: u64 = 1 << VIRTIO_F_RING_PACKED;

/// The feature of buffers that are used in the order in which they were made available, which
/// [`Queue`] sees to.
pub const IN_ORDER: u64 = 1 << VIRTIO_F_IN_ORDER;

/// Longest chain taken from an indirect table: drivers size these by the device's segment limit
/// rather than by the queue, and the kernel takes no more buffers than this in one call.
pub const MAX_INDIRECT: u16 = 1024;

/// A vring that is broken beyond the request at hand: nothing more can be served from it.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// A size that the layout cannot have, or an address that is misaligned or outside memory.
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
    /// A packed queue cannot begin there.
    #[error("position {index} in a queue of {size}")]
    Position {
        /// The index of that position.
        index: u16,
        /// The queue's size.
        size: u16,
    },
    /// The driver names a chain with a number that is not below the queue's size.
    #[error("buffer id {0} is not below the queue's size")]
    BufferId(u16),
    /// The driver gives a chain that it has not got back the name of another.
    #[error("chain {0} is made available while it is in flight")]
    InFlight(u16),
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
    /// An indirect descriptor without the feature, inside an indirect table, or with NEXT.
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

#[derive(Debug)]
enum Ring {
    Split(SplitQueue),
    Packed(PackedQueue),
}

/// Calls the same method of either ring.
macro_rules! either {
    ($ring:expr, $name:ident($($argument:expr),*)) => {
        match $ring {
            Ring::Split(ring) => ring.$name($($argument),*),
            Ring::Packed(ring) => ring.$name($($argument),*),
        }
    };
}

/// A virtqueue that hands out checked chains, whatever its rings look like.
#[derive(Debug)]
pub struct Queue {
    ring: Ring,
    /// With IN_ORDER, the chains in flight.
    order: Option<Order>,
    memory: Arc<GuestMemory>,
    size: u16,
}

impl Queue {
    /// Takes a queue over at the position `next_avail`, with everything before it already used.
    ///
    /// # Errors
    ///
    /// [`QueueError::BadLayout`], [`QueueError::Position`] or an unreadable used index.
    pub fn new(
        memory: Arc<GuestMemory>,
        layout: VringLayout,
        features: u64,
        next_avail: u16,
    ) -> Result<Self, QueueError> {
        Ok(Self {
            ring: match layout.packed {
                false => Ring::Split(SplitQueue::new(&memory, layout, features, next_avail)?),
                true => Ring::Packed(PackedQueue::new(&memory, layout, features, next_avail)?),
            },
            order: (features & IN_ORDER != 0).then(|| Order::new(layout.size)),
            memory,
            size: layout.size,
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

    /// The position of the first request not taken yet.
    pub fn next_avail(&self) -> u16 {
        either!(&self.ring, next_avail())
    }

    /// Takes the next request into `chain`; false when there is none.
    ///
    /// # Errors
    ///
    /// A broken ring, in which case the request stays untaken and the queue should be given up.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, QueueError> {
        if !either!(&mut self.ring, peek(&self.memory, chain))? {
            return Ok(false);
        }
        if let Some(order) = &mut self.order {
            order.begin(chain.head)?;
        }
        // From here on, whoever takes memory away sees its use, or this queue sees that it is gone.
        self.memory.hold(chain);
        either!(&mut self.ring, advance());
        Ok(true)
    }

    /// Whether there are requests to take; cheap enough to be asked over and over.
    ///
    /// # Errors
    ///
    /// When the rings are no longer inside memory.
    pub fn has_requests(&self) -> Result<bool, QueueError> {
        either!(&self.ring, has_requests())
    }

    /// Gives the chain with this head back after `written` bytes were written to it. The driver
    /// need not see it before [`Queue::publish`], and with IN_ORDER does not before it has got back
    /// all that it made available earlier.
    ///
    /// # Errors
    ///
    /// When the rings are no longer inside memory.
    pub fn push_used(&mut self, head: u16, written: u32) -> Result<(), QueueError> {
        self.memory.release(head);
        let Some(order) = &mut self.order else {
            return either!(&mut self.ring, push_used(head, written));
        };
        order.end(head, written);
        while let Some((head, written)) = order.next_ended() {
            either!(&mut self.ring, push_used(head, written))?;
        }
        Ok(())
    }

    /// Shows the driver what was pushed.
    ///
    /// # Errors
    ///
    /// When the rings are no longer inside memory.
    pub fn publish(&mut self) -> Result<(), QueueError> {
        match &mut self.ring {
            Ring::Split(ring) => ring.publish(),
            // Its driver sees each of them already.
            Ring::Packed(_) => Ok(()),
        }
    }

    /// Shows the driver what was pushed, and says whether it wants to be told of what it was shown
    /// since the last time.
    ///
    /// # Errors
    ///
    /// When the rings are no longer inside memory.
    pub fn needs_call(&mut self) -> Result<bool, QueueError> {
        either!(&mut self.ring, needs_call())
    }

    /// Asks the driver not to kick while the queue is being worked on.
    ///
    /// # Errors
    ///
    /// When the rings are no longer inside memory.
    pub fn disable_kick(&mut self) -> Result<(), QueueError> {
        either!(&mut self.ring, disable_kick())
    }

    /// Asks the driver to kick again; true when there are requests already, for which it may not.
    ///
    /// # Errors
    ///
    /// When the rings are no longer inside memory.
    pub fn enable_kick(&mut self) -> Result<bool, QueueError> {
        either!(&mut self.ring, enable_kick())
    }
}

#[cfg(test)]
mod tests;
