//! The driver's side of a split or packed virtqueue.

use std::sync::Arc;

use super::{DriverRing, EVENT_ENABLE, PackedDriverRing};
use crate::{GuestMemory, VringLayout};

/// The driver's side of a split or packed virtqueue, for drivers that follow the rules of virtio.
#[derive(Debug)]
pub enum AnyDriverRing {
    /// A split virtqueue.
    Split(DriverRing),
    /// A packed virtqueue.
    Packed(PackedDriverRing),
}

impl AnyDriverRing {
    /// A packed ring if `packed` is true, otherwise a split ring. See [`DriverRing::new`] for the
    /// other arguments.
    pub fn new(packed: bool, memory: Arc<GuestMemory>, base: u64, size: u16) -> Self {
        match packed {
            false => Self::Split(DriverRing::new(memory, base, size)),
            true => Self::Packed(PackedDriverRing::new(memory, base, size)),
        }
    }

    /// The split ring.
    ///
    /// # Panics
    ///
    /// When the ring is packed.
    pub fn split(&mut self) -> &mut DriverRing {
        match self {
            Self::Split(ring) => ring,
            Self::Packed(_) => panic!("a packed ring"),
        }
    }

    /// The layout of the ring.
    pub fn layout(&self) -> VringLayout {
        match self {
            Self::Split(ring) => ring.layout(),
            Self::Packed(ring) => ring.layout(),
        }
    }

    /// The position of the next chain.
    pub fn position(&self) -> u16 {
        match self {
            Self::Split(ring) => ring.position(),
            Self::Packed(ring) => ring.position(),
        }
    }

    /// Makes an invalid chain available. The device then stops serving the ring.
    pub fn break_it(&mut self) {
        let size = self.layout().size;
        match self {
            Self::Split(ring) => ring.publish(size),
            Self::Packed(ring) => ring.add_as(size, &[(0, 1, false)]),
        }
    }

    /// Whether the device asks the driver for a kick after each chain.
    pub fn kicks_are_on(&self) -> bool {
        match self {
            Self::Split(ring) => ring.used_flags() == 0,
            Self::Packed(ring) => ring.device_event() == (EVENT_ENABLE, 0),
        }
    }

    /// Adds a chain of (address, length, writable?) buffers, and returns the chain's head (split)
    /// or buffer id (packed).
    pub fn add(&mut self, buffers: &[(u64, u32, bool)]) -> u16 {
        match self {
            Self::Split(ring) => ring.add(buffers),
            Self::Packed(ring) => ring.add(buffers),
        }
    }

    /// The next chain that the device has used: its head (split) or buffer id (packed), and the
    /// number of bytes written to it. `None` if the device has used no further chain.
    pub fn pop_used(&mut self) -> Option<(u32, u32)> {
        match self {
            Self::Split(ring) => ring.pop_used(),
            Self::Packed(ring) => ring.pop_used(),
        }
    }

    /// Asks for a call at the next used buffer.
    pub fn ask_for_call(&self, event_idx: bool) {
        match self {
            Self::Split(ring) if event_idx => ring.ask_for_call(),
            Self::Split(_) => {}
            Self::Packed(ring) => ring.ask_for_call(event_idx),
        }
    }

    /// Whether the device wants a kick for the chains that were added since the previous call of
    /// this method.
    pub fn wants_kick(&mut self, event_idx: bool) -> bool {
        match self {
            Self::Split(ring) => ring.wants_kick(event_idx),
            Self::Packed(ring) => ring.wants_kick(),
        }
    }
}
