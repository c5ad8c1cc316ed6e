//! The device side of a split virtqueue (virtio 1.2, section 2.7).
//!
//! The tests compare the results of this queue with the results of the queue in the crate
//! virtio-queue.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::{VRING_AVAIL_F_NO_INTERRUPT, VRING_USED_F_NO_NOTIFY};

use super::Features;
use super::collect::Collector;
use crate::ring::{Descriptor, INDIRECT, Layout, NEXT, SplitRing};
use crate::{Chain, GuestMemory, QueueError, VringLayout};

/// A split virtqueue. The methods are documented at [`Queue`](super::Queue).
#[derive(Debug)]
pub(super) struct SplitQueue {
    ring: SplitRing,
    size: u16,
    features: Features,
    /// The index, in the available ring, of the first request that the device has not taken yet.
    next_avail: u16,
    /// The last value that the device read from the driver's available index. The device can take
    /// all requests before this index without reading the available index again.
    avail_index: u16,
    /// The index, in the used ring, for the next used chain.
    next_used: u16,
    /// The used index that the driver sees.
    published: u16,
    /// The used index at the last call of [`SplitQueue::needs_call`].
    decided: u16,
}

impl SplitQueue {
    pub fn new(
        memory: &Arc<GuestMemory>,
        layout: VringLayout,
        features: Features,
        next_avail: u16,
    ) -> Result<Self, QueueError> {
        let ring = SplitRing::new(memory, layout)?;
        let next_used = ring.used_index()?;
        Ok(Self {
            ring,
            size: layout.size,
            features,
            next_avail,
            avail_index: next_avail,
            next_used,
            published: next_used,
            decided: next_used,
        })
    }

    /// The index, in the available ring, of the first request that the device has not taken yet.
    pub fn next_avail(&self) -> u16 {
        self.next_avail
    }

    /// Copies the next request into `chain`, but does not take the request. Returns false if there
    /// are no requests.
    pub fn peek(&mut self, memory: &GuestMemory, chain: &mut Chain) -> Result<bool, QueueError> {
        if self.avail_index == self.next_avail && !self.look()? {
            return Ok(false);
        }
        chain.clear();
        chain.head = self.ring.avail_entry(self.next_avail)?;
        self.walk(memory, chain)?;
        Ok(true)
    }

    /// Collects the buffers of the chain that begins with `chain.head`.
    fn walk(&self, memory: &GuestMemory, chain: &mut Chain) -> Result<(), QueueError> {
        let head = chain.head;
        let mut collector = Collector::new(chain, self.size);
        let ring = |index| self.descriptor(index);
        let Some(last) = along(ring, head, &mut collector)? else {
            return Ok(());
        };
        let table = self.features.table(Layout::Split, memory, &last)?;
        collector.enter_table();
        match along(|index| table.get(index), 0, &mut collector)? {
            None => Ok(()),
            Some(_) => Err(QueueError::BadIndirect),
        }
    }

    fn descriptor(&self, index: u16) -> Result<Descriptor, QueueError> {
        if index >= self.size {
            let len = self.size.into();
            return Err(QueueError::DescriptorIndex { index, len });
        }
        self.ring.descriptor(index)
    }

    /// Takes the request that `peek` copied last.
    pub fn advance(&mut self) {
        self.next_avail = self.next_avail.wrapping_add(1);
    }

    /// Puts back the request that was taken last.
    pub fn step_back(&mut self, _head: u16) {
        self.next_avail = self.next_avail.wrapping_sub(1);
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
        // The driver writes used_event or its flags, and then reads the used index. The device
        // writes the used index before the fence, and reads the driver's fields after the fence. So
        // the driver sees the device's write, or the device sees the driver's write.
        fence(Ordering::SeqCst);
        if !self.features.event_idx {
            return Ok(!self.calls_are_off()?);
        }
        Ok(is_among(before, self.published, self.ring.used_event()?))
    }

    pub fn calls_are_off(&self) -> Result<bool, QueueError> {
        let off = VRING_AVAIL_F_NO_INTERRUPT as u16;
        Ok(!self.features.event_idx && self.ring.avail_flags()? & off != 0)
    }

    pub fn disable_kick(&mut self) -> Result<(), QueueError> {
        match self.features.event_idx {
            // With EVENT_IDX, the driver sends a kick only when its available index passes
            // avail_event. The available index is already past this avail_event, by more than the
            // queue's size, and will not pass it again soon. So the driver sends no kick.
            true => {
                let behind = self.next_avail.wrapping_sub(self.size + 1);
                self.ring.set_avail_event(behind)
            }
            false => self.ring.set_used_flags(VRING_USED_F_NO_NOTIFY as u16),
        }
    }

    pub fn enable_kick(&mut self) -> Result<bool, QueueError> {
        match self.features.event_idx {
            true => self.ring.set_avail_event(self.next_avail)?,
            false => self.ring.set_used_flags(0)?,
        }
        // The driver writes the available index, and then reads avail_event or the used flags. The
        // device writes avail_event or the used flags before the fence, and reads the available
        // index after the fence. So the driver sees the device's write, or the device sees the
        // driver's write.
        fence(Ordering::SeqCst);
        self.has_requests()
    }

    /// Reads the available index. Returns false if there are no new requests.
    fn look(&mut self) -> Result<bool, QueueError> {
        let (next, index, size) = (self.next_avail, self.ring.avail_index()?, self.size);
        if index.wrapping_sub(next) > size {
            return Err(QueueError::AvailIndex { next, index, size });
        }
        self.avail_index = index;
        Ok(index != next)
    }
}

/// Collects buffers from the descriptor at `index` on, up to the end of the chain or up to an
/// indirect descriptor. Returns the indirect descriptor, or `None` at the end of the chain.
fn along(
    get: impl Fn(u16) -> Result<Descriptor, QueueError>,
    mut index: u16,
    collector: &mut Collector<'_>,
) -> Result<Option<Descriptor>, QueueError> {
    loop {
        let descriptor = get(index)?;
        if descriptor.flags & INDIRECT != 0 {
            return Ok(Some(descriptor));
        }
        collector.take(&descriptor)?;
        if descriptor.flags & NEXT == 0 {
            return Ok(None);
        }
        index = descriptor.link;
    }
}

/// Whether `event` is one of the indices `before..published` (virtio 1.2, section 2.7.7.2). The
/// indices wrap at 65536.
fn is_among(before: u16, published: u16, event: u16) -> bool {
    let new = published.wrapping_sub(before);
    let age = published.wrapping_sub(event);
    age.wrapping_sub(1) < new
}

#[cfg(test)]
mod tests;
