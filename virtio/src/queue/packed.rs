//! The device side of a packed virtqueue (virtio 1.2, section 2.8).

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::walk::{indirect_table, take};
use super::{MAX_INDIRECT, QueueError};
use crate::ring::{Event, INDIRECT, NEXT, PackedDescriptor, PackedRing};
use crate::vring::WRAP;
use crate::{Chain, GuestMemory, VringLayout};

/// See [`Queue`](super::Queue) for what its methods do.
#[derive(Debug)]
pub(super) struct PackedQueue {
    ring: PackedRing,
    size: u16,
    indirect: bool,
    event_idx: bool,
    /// The first request not taken yet.
    next_avail: Position,
    /// Where the next used descriptor goes.
    next_used: Position,
    /// How many descriptors of the ring each chain in flight takes up, by its identity.
    lengths: Box<[u16]>,
    /// The sum of them.
    taken: u16,
    /// What [`PackedQueue::advance`] takes: the chain's identity and descriptors.
    peeked: (u16, u16),
    /// Descriptors given back since the driver was last asked whether it wants to be called.
    fresh: u32,
}

/// A place in the ring, and the wrap counter of the lap.
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

    /// The position `count` descriptors, `size` at most, further on.
    fn after(self, count: u16, size: u16) -> Self {
        // Neither is more than 32768, and the index is less.
        match self.index + count {
            index if index < size => Self { index, ..self },
            index => Self {
                index: index - size,
                wrap: !self.wrap,
            },
        }
    }
}

impl PackedQueue {
    pub fn new(
        memory: &Arc<GuestMemory>,
        layout: VringLayout,
        features: u64,
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
            indirect: features & (1 << VIRTIO_RING_F_INDIRECT_DESC) != 0,
            event_idx: features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0,
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

    /// Copies the next request into `chain` without taking it; false when there is none.
    pub fn peek(&mut self, memory: &GuestMemory, chain: &mut Chain) -> Result<bool, QueueError> {
        let Position { index, wrap } = self.next_avail;
        let first = self.ring.descriptor(index)?;
        if !first.is_available(wrap) {
            return Ok(false);
        }
        chain.clear(0);
        let (id, length) = match first.flags & INDIRECT {
            0 => self.along(first, chain)?,
            _ => self.indirect(first, memory, chain)?,
        };
        // Nor may there be more chains than descriptors, or used ones would go where others are.
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

    /// Takes the request that was seen last.
    pub fn advance(&mut self) {
        let (id, length) = self.peeked;
        self.lengths[usize::from(id)] = length;
        self.taken += length;
        self.next_avail = self.next_avail.after(length, self.size);
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
        // The driver writes what it wants and then reads flags, we the other way round.
        fence(Ordering::SeqCst);
        Ok(match self.ring.driver_event()? {
            Event::Never => false,
            Event::At(event) if self.event_idx => self.is_fresh(Position::decode(event), fresh),
            Event::Always | Event::At(_) => true,
        })
    }

    pub fn disable_kick(&mut self) -> Result<(), QueueError> {
        self.ring.set_device_event(Event::Never)
    }

    pub fn enable_kick(&mut self) -> Result<bool, QueueError> {
        self.ring.set_device_event(match self.event_idx {
            true => Event::At(self.next_avail.encode()),
            false => Event::Always,
        })?;
        // The driver writes flags and then reads what we want, we the other way round.
        fence(Ordering::SeqCst);
        self.has_requests()
    }

    /// Whether a position is among the last `fresh` descriptors given back.
    fn is_fresh(&self, event: Position, fresh: u32) -> bool {
        let (next, size) = (self.next_used, i64::from(self.size));
        let lap = if event.wrap == next.wrap { 0 } else { size };
        let behind = i64::from(next.index) + lap - i64::from(event.index);
        (1..=i64::from(fresh)).contains(&behind)
    }

    /// Collects the buffers of a chain in the ring: its identity and length.
    fn along(&self, first: PackedDescriptor, chain: &mut Chain) -> Result<(u16, u16), QueueError> {
        let (mut descriptor, mut position) = (first, self.next_avail);
        for length in 1..=self.size {
            if descriptor.flags & INDIRECT != 0 {
                return Err(QueueError::BadIndirect);
            }
            take(chain, descriptor.buffer, descriptor.flags)?;
            if descriptor.flags & NEXT == 0 {
                return Ok((descriptor.id, length));
            }
            position = position.after(1, self.size);
            descriptor = self.ring.descriptor(position.index)?;
        }
        Err(QueueError::ChainTooLong(self.size))
    }

    /// Collects the buffers of an indirect table, all of which belong to the chain.
    fn indirect(
        &self,
        first: PackedDescriptor,
        memory: &GuestMemory,
        chain: &mut Chain,
    ) -> Result<(u16, u16), QueueError> {
        if !self.indirect || first.flags & NEXT != 0 {
            return Err(QueueError::BadIndirect);
        }
        let (table, entries) = indirect_table(first.buffer)?;
        let most = self.size.max(MAX_INDIRECT);
        if entries > most.into() {
            return Err(QueueError::ChainTooLong(most));
        }
        for index in 0..entries {
            let descriptor = PackedDescriptor::read(memory, table, index)?;
            if descriptor.flags & INDIRECT != 0 {
                return Err(QueueError::BadIndirect);
            }
            take(chain, descriptor.buffer, descriptor.flags)?;
        }
        Ok((first.id, 1))
    }
}
