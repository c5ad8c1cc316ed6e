//! The device side of a virtqueue (virtio 1.2, section 2.6).

use std::sync::Arc;

use virtio_bindings::virtio_config::{VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::ring::{Descriptor, Layout, NEXT, Table};
use crate::{Chain, GuestMemory, QueueError, VringLayout};

mod collect;
mod order;
mod packed;
mod split;

use order::Order;
use packed::PackedQueue;
use split::SplitQueue;

/// The ring features that [`Queue`] supports in both layouts, split and packed.
pub const RING_FEATURES: u64 = (1 << VIRTIO_RING_F_EVENT_IDX) | (1 << VIRTIO_RING_F_INDIRECT_DESC);

/// The feature bit of packed virtqueues. [`Queue`] serves a packed virtqueue if
/// [`VringLayout::packed`] is true.
pub const PACKED: u64 = 1 << VIRTIO_F_RING_PACKED;

/// The feature bit of devices that give buffers back in the order in which the driver made them
/// available. If the driver accepts this feature, [`Queue`] keeps this order, even if the device
/// gives the buffers back in another order.
pub const IN_ORDER: u64 = 1 << VIRTIO_F_IN_ORDER;

/// The maximum number of descriptors in one chain, in the ring and in an indirect table together.
/// The limit does not depend on the ring's size. It allows 1,024 buffers for data, which is the
/// maximum that the kernel accepts in one system call, and two more buffers.
pub const MAX_DESCRIPTORS: u16 = 1026;

/// The negotiated features that matter to a ring, split or packed.
#[derive(Clone, Copy, Debug)]
struct Features {
    indirect: bool,
    event_idx: bool,
}

impl Features {
    fn from_bits(bits: u64) -> Self {
        Self {
            indirect: bits & (1 << VIRTIO_RING_F_INDIRECT_DESC) != 0,
            event_idx: bits & (1 << VIRTIO_RING_F_EVENT_IDX) != 0,
        }
    }

    /// The table that an indirect descriptor points to.
    fn table<'a>(
        self,
        layout: Layout,
        memory: &'a GuestMemory,
        descriptor: &Descriptor,
    ) -> Result<Table<'a>, QueueError> {
        if !self.indirect || descriptor.flags & NEXT != 0 {
            return Err(QueueError::BadIndirect);
        }
        Table::new(layout, memory, descriptor.buffer)
    }
}

#[derive(Debug)]
enum Ring {
    Split(SplitQueue),
    Packed(PackedQueue),
}

/// Calls the method `$name` of the split queue or of the packed queue.
macro_rules! either {
    ($ring:expr, $name:ident($($argument:expr),*)) => {
        match $ring {
            Ring::Split(ring) => ring.$name($($argument),*),
            Ring::Packed(ring) => ring.$name($($argument),*),
        }
    };
}

/// A split or packed virtqueue. A device takes chains from the queue. The queue has checked all
/// descriptors of these chains.
///
/// # Example
///
/// ```
/// use virtio::queue::RING_FEATURES;
/// use virtio::test_utils::{DriverRing, memory};
/// use virtio::{Chain, Queue};
/// use vm_memory::{Bytes, GuestAddress};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // A driver makes two buffers available: one with five bytes, and one for an answer.
/// let memory = memory(0x10000);
/// let mut driver = DriverRing::new(memory.clone(), 0x1000, 8);
/// memory.write_slice(b"hello", GuestAddress(0x4000))?;
/// let head = driver.add(&[(0x4000, 5, false), (0x5000, 5, true)]);
///
/// // A device takes each request, answers it in capital letters, and gives it back.
/// let mut queue = Queue::new(memory.clone(), driver.layout(), RING_FEATURES, 0)?;
/// let mut chain = Chain::default();
/// while queue.pop(&mut chain)? {
///     let mut bytes = [0; 5];
///     chain.readable.read(&memory, 0, &mut bytes)?;
///     chain.writable.write(&memory, 0, &bytes.to_ascii_uppercase())?;
///     queue.push_used(chain.head, 5)?;
/// }
/// assert!(queue.needs_call()?, "the driver waits for the answer");
///
/// assert_eq!(driver.pop_used(), Some((u32::from(head), 5)));
/// assert_eq!(&memory.read_obj::<[u8; 5]>(GuestAddress(0x5000))?, b"HELLO");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Queue {
    ring: Ring,
    /// The order of the chains in flight. `None` if VIRTIO_F_IN_ORDER is not negotiated.
    order: Option<Order>,
    /// The head of the chain that was taken last. `None` if there is no such chain, or if it was
    /// put back.
    last: Option<u16>,
    memory: Arc<GuestMemory>,
    size: u16,
}

impl Queue {
    /// Begins to serve a virtqueue at the position `next_avail`. The device must already have given
    /// back all requests before this position.
    ///
    /// # Errors
    ///
    /// [`QueueError::BadLayout`], [`QueueError::Position`], or [`QueueError::Memory`] when the used
    /// index cannot be read.
    pub fn new(
        memory: Arc<GuestMemory>,
        layout: VringLayout,
        features: u64,
        next_avail: u16,
    ) -> Result<Self, QueueError> {
        let ring_features = Features::from_bits(features);
        Ok(Self {
            ring: match layout.packed {
                false => Ring::Split(SplitQueue::new(&memory, layout, ring_features, next_avail)?),
                true => Ring::Packed(PackedQueue::new(
                    &memory,
                    layout,
                    ring_features,
                    next_avail,
                )?),
            },
            order: (features & IN_ORDER != 0).then(|| Order::new(layout.size)),
            last: None,
            memory,
            size: layout.size,
        })
    }

    /// The driver's memory, which holds this queue and its buffers.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// The queue's size: its number of descriptors.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// The position of the first request that the device has not taken yet.
    pub fn next_avail(&self) -> u16 {
        either!(&self.ring, next_avail())
    }

    /// Takes the next request into `chain`. Returns false if there are no requests.
    ///
    /// # Errors
    ///
    /// When the ring is broken. The request is not taken, and the caller should stop serving the
    /// queue.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, QueueError> {
        let found = either!(&mut self.ring, peek(&self.memory, chain));
        // A ring in lost memory reads as zeros, so it looks empty or broken. So this check comes
        // before the result of `peek`.
        self.memory.check()?;
        if !found? {
            return Ok(false);
        }
        if let Some(order) = &mut self.order {
            order.begin(chain.head)?;
        }
        // `hold` records the chain's buffers, so that `is_in_use` reports them to the carrier. If
        // the driver has already unmapped a buffer, accesses to the buffer fail.
        self.memory.hold(chain.head, chain.lists_mut());
        either!(&mut self.ring, advance());
        self.last = Some(chain.head);
        Ok(true)
    }

    /// Puts back a chain that was not served, as if [`Queue::pop`] had not returned it. The chain
    /// has to be the one that was taken last, and must not have been given back. The next pop reads
    /// the ring again, because the driver may have changed it.
    ///
    /// # Panics
    ///
    /// When another chain was taken last.
    pub fn put_back(&mut self, chain: &mut Chain) {
        let head = chain.head;
        assert_eq!(self.last.take(), Some(head), "another chain was taken last");
        self.memory.release(head);
        if let Some(order) = &mut self.order {
            order.cancel_last();
        }
        either!(&mut self.ring, step_back(head));
        chain.clear();
    }

    /// Whether the queue has requests that were not taken yet. This method costs only one or two
    /// loads, so a busy loop may call it.
    ///
    /// # Errors
    ///
    /// When the rings are no longer inside memory.
    pub fn has_requests(&self) -> Result<bool, QueueError> {
        either!(&self.ring, has_requests())
    }

    /// Gives the chain with this head (split) or buffer id (packed) back, after the device wrote
    /// `written` bytes to the chain's buffers.
    ///
    /// In a split virtqueue, the driver sees the chain only after [`Queue::publish`] or
    /// [`Queue::needs_call`]. With VIRTIO_F_IN_ORDER, the driver sees the chain only after all
    /// chains that it made available earlier have been given back.
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

    /// Makes all chains that the device gave back visible to the driver.
    ///
    /// # Errors
    ///
    /// When the rings are no longer inside memory.
    pub fn publish(&mut self) -> Result<(), QueueError> {
        match &mut self.ring {
            Ring::Split(ring) => ring.publish(),
            // In a packed ring, `push_used` has already made each chain visible to the driver.
            Ring::Packed(_) => Ok(()),
        }
    }

    /// Makes all chains that the device gave back visible to the driver. Returns true if the driver
    /// wants a notification (a call) for a chain that became visible since this method last
    /// returned.
    ///
    /// # Errors
    ///
    /// When the rings are no longer inside memory, or the memory is lost.
    pub fn needs_call(&mut self) -> Result<bool, QueueError> {
        let needed = either!(&mut self.ring, needs_call());
        self.memory.check()?;
        needed
    }

    /// Whether the driver asks for no calls, whatever the device uses. Before such a driver sleeps,
    /// it asks for calls and looks at the ring, so it misses nothing.
    ///
    /// # Errors
    ///
    /// When the rings are no longer inside memory.
    pub fn calls_are_off(&self) -> Result<bool, QueueError> {
        either!(&self.ring, calls_are_off())
    }

    /// Asks the driver to send no kicks, because the device is processing the queue.
    ///
    /// # Errors
    ///
    /// When the rings are no longer inside memory.
    pub fn disable_kick(&mut self) -> Result<(), QueueError> {
        either!(&mut self.ring, disable_kick())
    }

    /// Asks the driver for a kick after the next request. Returns true if the queue already has
    /// requests. The device has to take these requests, because the driver may send no kick for
    /// them.
    ///
    /// # Errors
    ///
    /// When the rings are no longer inside memory, or the memory is lost.
    pub fn enable_kick(&mut self) -> Result<bool, QueueError> {
        let more = either!(&mut self.ring, enable_kick());
        self.memory.check()?;
        more
    }
}

#[cfg(test)]
mod tests;
