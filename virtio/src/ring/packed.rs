//! The three parts of a packed virtqueue (virtio 1.2, section 2.8). Each field is read or written
//! by one load or store.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::descriptor::{Descriptor, Layout};
use super::part::{Part, WritablePart};
use crate::{GuestMemory, QueueError, VringLayout};

/// Descriptor flag: the wrap counter of the lap in which the descriptor was made available.
const AVAIL: u16 = 1 << 7;
/// Descriptor flag: the wrap counter of the lap in which the descriptor was last used.
const USED: u16 = 1 << 15;

/// Whether a descriptor with these flags is available, and not used yet, in a lap with the wrap
/// counter `wrap`.
pub(crate) fn is_available(flags: u16, wrap: bool) -> bool {
    flags & (AVAIL | USED) == if wrap { AVAIL } else { USED }
}

/// The condition for a notification: for a call to the driver, or for a kick to the device (virtio
/// 1.2, section 2.8.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Notify for each descriptor.
    Always,
    Never,
    /// Notify when the descriptor at this position is made available or used.
    At(u16),
}

impl Event {
    fn from_le(word: u32) -> Self {
        let word = u32::from_le(word);
        match word >> 16 & 3 {
            1 => Self::Never,
            2 => Self::At(word as u16),
            // The reserved value 3 counts as `Always`, because an unneeded notification does no
            // harm.
            _ => Self::Always,
        }
    }

    fn to_le(self) -> u32 {
        let word = match self {
            Self::Always => 0,
            Self::Never => 1 << 16,
            Self::At(position) => 2 << 16 | u32::from(position),
        };
        word.to_le()
    }
}

/// A packed virtqueue in the driver's memory.
#[derive(Debug)]
pub(crate) struct PackedRing {
    descriptors: WritablePart<u64>,
    /// The condition for a call to the driver.
    driver: Part<u32>,
    /// The condition for a kick to the device.
    device: WritablePart<u32>,
}

impl PackedRing {
    /// Checks a layout, and finds the parts of the virtqueue in memory.
    pub fn new(memory: &Arc<GuestMemory>, layout: VringLayout) -> Result<Self, QueueError> {
        let size = usize::from(layout.size);
        let find = || {
            Some(Self {
                descriptors: Part::new(memory, layout.desc.0, 2 * size)?,
                driver: Part::new(memory, layout.avail.0, 1)?,
                device: Part::new(memory, layout.used.0, 1)?,
            })
        };
        let parts = [(layout.desc, 16), (layout.avail, 4), (layout.used, 4)];
        let aligned = parts.iter().all(|(addr, to)| addr.0.is_multiple_of(*to));
        let fits = (1..=32768).contains(&size) && aligned;
        let found = if fits { find() } else { None };
        found.ok_or(QueueError::BadLayout(layout))
    }

    /// The descriptor at `index`. The flags are loaded first, with acquire order. All later loads
    /// then see the data that the driver stored before the flags.
    pub fn descriptor(&self, index: u16) -> Result<Descriptor, QueueError> {
        let at = 2 * usize::from(index);
        let rest = self.descriptors.load(at + 1, Ordering::Acquire)?;
        let addr = self.descriptors.load(at, Ordering::Relaxed)?;
        Ok(Descriptor::decode(Layout::Packed, [addr, rest]))
    }

    /// Whether the driver has made the descriptor at `index` available in a lap with the wrap
    /// counter `wrap`.
    pub fn is_available(&self, index: u16, wrap: bool) -> Result<bool, QueueError> {
        let at = 2 * usize::from(index) + 1;
        let rest = u64::from_le(self.descriptors.load(at, Ordering::Acquire)?);
        Ok(is_available((rest >> 48) as u16, wrap))
    }

    /// Gives the chain with the buffer id `id` back in the descriptor at `index`, in a lap with the
    /// wrap counter `wrap`. A driver that sees the used descriptor also sees all data that the
    /// device wrote earlier.
    pub fn set_used(
        &self,
        index: u16,
        wrap: bool,
        id: u16,
        written: u32,
    ) -> Result<(), QueueError> {
        let lap = if wrap { AVAIL | USED } else { 0 };
        let flags = lap | if written > 0 { super::WRITE } else { 0 };
        let rest = u64::from(written) | u64::from(id) << 32 | u64::from(flags) << 48;
        let at = 2 * usize::from(index) + 1;
        self.descriptors.store(at, rest.to_le(), Ordering::Release)
    }

    /// The condition for a call to the driver.
    pub fn driver_event(&self) -> Result<Event, QueueError> {
        Ok(Event::from_le(self.driver.load(0, Ordering::Relaxed)?))
    }

    /// Sets the condition for a kick to the device.
    pub fn set_device_event(&self, event: Event) -> Result<(), QueueError> {
        self.device.store(0, event.to_le(), Ordering::Relaxed)
    }
}
