//! The device side of a packed virtqueue (virtio 1.2, section 2.8).

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::Features;
use super::collect::Collector;
use crate::ring::{Descriptor, Event, INDIRECT, Layout, NEXT, PackedRing, is_available};
use crate::vring::WRAP;
use crate::{Chain, GuestMemory, QueueError, VringLayout};

/// A packed virtqueue. The methods are documented at [`Queue`](super::Queue).
#[derive(Debug)]
pub(super) struct PackedQueue {
    ring: PackedRing,
    size: u16,
    features: Features,
    /// The position of the first request that the device has not taken yet.
    next_avail: Position,
    /// The position at which the device writes the next used descriptor.
    next_used: Position,
    /// The number of ring descriptors of each chain in flight. The index is the chain's buffer id.
    lengths: Box<[u16]>,
    /// The number of ring descriptors of all chains in flight.
    taken: u16,
    /// The buffer id, and the number of ring descriptors, of the chain that
    /// [`PackedQueue::advance`] takes next.
    peeked: (u16, u16),
    /// The number of descriptors that the device gave back since the last call of
    /// [`PackedQueue::needs_call`].
    fresh: u32,
}

/// An index in the descriptor ring, and the wrap counter, which changes with each lap around the
/// ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    index: u16,
    wrap: bool,
}

impl Position {
    fn decode(position: u16) -> Self {
        Self {
            index: position & !WRAP,
            wrap: position & WRAP != 0,
        }
    }

    fn encode(self) -> u16 {
        self.index | if self.wrap { WRAP } else { 0 }
    }

    /// The position `count` descriptors after this position. `count` is at most `size`.
    fn after(self, count: u16, size: u16) -> Self {
        // The sum cannot overflow, because the index is below 32768, and the count is at most
        // 32768.
        match self.index + count {
            index if index < size => Self { index, ..self },
            index => Self {
                index: index - size,
                wrap: !self.wrap,
            },
        }
    }

    /// The position `count` descriptors before this one. `count` is at most `size`.
    fn before(self, count: u16, size: u16) -> Self {
        match self.index.checked_sub(count) {
            Some(index) => Self { index, ..self },
            None => Self {
                index: self.index + (size - count),
                wrap: !self.wrap,
            },
        }
    }

    /// Whether this position is one of the `count` positions before `next`. The wrap counter
    /// distinguishes only two laps. A position with the wrap counter of `next`, and an index that
    /// is not below the index of `next`, may be in the current lap or two laps ago. This function
    /// treats it as a position in the current lap, which is not before `next`.
    fn is_among_last(self, count: u32, next: Self, size: u16) -> bool {
        let lap = match self.wrap == next.wrap {
            true => 0,
            false => i64::from(size),
        };
        let behind = i64::from(next.index) + lap - i64::from(self.index);
        (1..=i64::from(count)).contains(&behind)
    }
}

impl PackedQueue {
    pub fn new(
        memory: &Arc<GuestMemory>,
        layout: VringLayout,
        features: Features,
        next_avail: u16,
    ) -> Result<Self, QueueError> {
        let (ring, size) = (PackedRing::new(memory, layout)?, layout.size);
        let position = Position::decode(next_avail);
        if position.index >= size {
            let index = position.index;
            return Err(QueueError::Position { index, size });
        }
        Ok(Self {
            ring,
            size,
            features,
            next_avail: position,
            next_used: position,
            lengths: vec![0; usize::from(size)].into(),
            taken: 0,
            peeked: (0, 0),
            fresh: 0,
        })
    }

    pub fn next_avail(&self) -> u16 {
        self.next_avail.encode()
    }

    /// Copies the next request into `chain`, but does not take the request. Returns false if there
    /// are no requests.
    pub fn peek(&mut self, memory: &GuestMemory, chain: &mut Chain) -> Result<bool, QueueError> {
        let Position { index, wrap } = self.next_avail;
        let first = self.ring.descriptor(index)?;
        if !is_available(first.flags, wrap) {
            return Ok(false);
        }
        chain.clear();
        let (id, length) = match first.flags & INDIRECT {
            0 => self.along(first, chain)?,
            _ => self.indirect(first, memory, chain)?,
        };
        // The number of descriptors in flight must not exceed the ring's size. Otherwise a used
        // descriptor could overwrite an available descriptor.
        if length > self.size - self.taken {
            return Err(QueueError::ChainTooLong(self.size - self.taken));
        }
        match self.lengths.get(usize::from(id)) {
            Some(0) => {}
            Some(_) => return Err(QueueError::InFlight(id)),
            None => return Err(QueueError::BufferId(id)),
        }
        chain.head = id;
        self.peeked = (id, length);
        Ok(true)
    }

    /// Takes the request that `peek` copied last.
    pub fn advance(&mut self) {
        let (id, length) = self.peeked;
        self.lengths[usize::from(id)] = length;
        self.taken += length;
        self.next_avail = self.next_avail.after(length, self.size);
    }

    /// Puts back the request that was taken last. `id` is the request's buffer id.
    pub fn step_back(&mut self, id: u16) {
        let length = std::mem::take(&mut self.lengths[usize::from(id)]);
        self.taken -= length;
        self.next_avail = self.next_avail.before(length, self.size);
    }

    pub fn has_requests(&self) -> Result<bool, QueueError> {
        let Position { index, wrap } = self.next_avail;
        self.ring.is_available(index, wrap)
    }

    pub fn push_used(&mut self, id: u16, written: u32) -> Result<(), QueueError> {
        let length = std::mem::take(&mut self.lengths[usize::from(id)]);
        let Position { index, wrap } = self.next_used;
        self.ring.set_used(index, wrap, id, written)?;
        self.taken -= length;
        self.fresh = self.fresh.saturating_add(length.into());
        self.next_used = self.next_used.after(length, self.size);
        Ok(())
    }

    pub fn needs_call(&mut self) -> Result<bool, QueueError> {
        let fresh = std::mem::take(&mut self.fresh);
        if fresh == 0 {
            return Ok(false);
        }
        // The driver writes its event field, and then reads descriptor flags. The device writes the
        // descriptor flags before the fence, and reads the driver's event field after the fence. So
        // the driver sees the device's write, or the device sees the driver's write.
        fence(Ordering::SeqCst);
        Ok(match self.ring.driver_event()? {
            Event::Never => false,
            Event::At(event) if self.features.event_idx => {
                let event = Position::decode(event);
                event.is_among_last(fresh, self.next_used, self.size)
            }
            Event::Always | Event::At(_) => true,
        })
    }

    pub fn calls_are_off(&self) -> Result<bool, QueueError> {
        Ok(matches!(self.ring.driver_event()?, Event::Never))
    }

    pub fn disable_kick(&mut self) -> Result<(), QueueError> {
        self.ring.set_device_event(Event::Never)
    }

    pub fn enable_kick(&mut self) -> Result<bool, QueueError> {
        self.ring.set_device_event(match self.features.event_idx {
            true => Event::At(self.next_avail.encode()),
            false => Event::Always,
        })?;
        // The driver writes descriptor flags, and then reads the device's event field. The device
        // writes its event field before the fence, and reads descriptor flags after the fence. So
        // the driver sees the device's write, or the device sees the driver's write.
        fence(Ordering::SeqCst);
        self.has_requests()
    }

    /// Collects the buffers of a chain whose descriptors are in the ring. Returns the chain's
    /// buffer id and its number of descriptors.
    fn along(&self, first: Descriptor, chain: &mut Chain) -> Result<(u16, u16), QueueError> {
        let mut collector = Collector::new(chain, self.size);
        let (mut descriptor, mut position) = (first, self.next_avail);
        loop {
            if descriptor.flags & INDIRECT != 0 {
                return Err(QueueError::BadIndirect);
            }
            collector.take(&descriptor)?;
            if descriptor.flags & NEXT == 0 {
                return Ok((descriptor.link, collector.taken()));
            }
            position = position.after(1, self.size);
            descriptor = self.ring.descriptor(position.index)?;
        }
    }

    /// Collects the buffers of an indirect table. All entries of the table belong to the chain.
    /// Returns the chain's buffer id and its number of descriptors in the ring, which is 1.
    fn indirect(
        &self,
        first: Descriptor,
        memory: &GuestMemory,
        chain: &mut Chain,
    ) -> Result<(u16, u16), QueueError> {
        let table = self.features.table(Layout::Packed, memory, &first)?;
        let mut collector = Collector::new(chain, self.size);
        collector.enter_table();
        for index in 0..collector.fit(table.len())? {
            let descriptor = table.get(index)?;
            if descriptor.flags & INDIRECT != 0 {
                return Err(QueueError::BadIndirect);
            }
            collector.take(&descriptor)?;
        }
        Ok((first.link, 1))
    }
}

#[cfg(test)]
mod tests;
