//! The device side of a split virtqueue (virtio 1.2, section 2.7).
//!
//! Tests check it against virtio-queue.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC, VRING_AVAIL_F_NO_INTERRUPT,
    VRING_USED_F_NO_NOTIFY,
};

use super::QueueError;
use super::walk::Source;
use crate::ring::SplitRing;
use crate::{Chain, GuestMemory, VringLayout};

/// See [`Queue`](super::Queue) for what its methods do.
#[derive(Debug)]
pub(super) struct SplitQueue {
    ring: SplitRing,
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
    pub fn new(
        memory: &Arc<GuestMemory>,
        layout: VringLayout,
        features: u64,
        next_avail: u16,
    ) -> Result<Self, QueueError> {
        let ring = SplitRing::new(memory, layout)?;
        let next_used = ring.used_index()?;
        Ok(Self {
            ring,
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

    /// Index in the available ring of the first request not taken yet.
    pub fn next_avail(&self) -> u16 {
        self.next_avail
    }

    /// Copies the next request into `chain` without taking it; false when there is none.
    pub fn peek(&mut self, memory: &GuestMemory, chain: &mut Chain) -> Result<bool, QueueError> {
        if self.avail_index == self.next_avail && !self.look()? {
            return Ok(false);
        }
        chain.clear(self.ring.avail_entry(self.next_avail)?);
        let source = Source {
            ring: &self.ring,
            memory,
            size: self.size,
            indirect: self.indirect,
        };
        source.walk(chain)?;
        Ok(true)
    }

    /// Takes the request that was seen last.
    pub fn advance(&mut self) {
        self.next_avail = self.next_avail.wrapping_add(1);
    }

    pub fn has_requests(&self) -> Result<bool, QueueError> {
        Ok(self.avail_index != self.next_avail || self.ring.avail_index()? != self.next_avail)
    }

    pub fn push_used(&mut self, head: u16, written: u32) -> Result<(), QueueError> {
        self.ring.set_used_entry(self.next_used, head, written)?;
        self.next_used = self.next_used.wrapping_add(1);
        Ok(())
    }

    pub fn publish(&mut self) -> Result<(), QueueError> {
        if self.published != self.next_used {
            self.ring.set_used_index(self.next_used)?;
            self.published = self.next_used;
        }
        Ok(())
    }

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

    pub fn disable_kick(&mut self) -> Result<(), QueueError> {
        match self.event_idx {
            // Further behind than any index from which a driver may go on.
            true => {
                let behind = self.next_avail.wrapping_sub(self.size + 1);
                self.ring.set_avail_event(behind)
            }
            false => self.ring.set_used_flags(VRING_USED_F_NO_NOTIFY as u16),
        }
    }

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
}
