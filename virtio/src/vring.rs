//! A configured vring on its way to the device that runs it.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use ipc::SharedEventFd;
use vm_memory::{GuestAddress, GuestMemory as _, Permissions};

use crate::GuestMemory;

/// A packed virtqueue's wrap counter as it is in positions: set in the first lap and each other one.
pub(crate) const WRAP: u16 = 1 << 15;

/// The position of the first request that a driver ever makes; see [`Vring::next_avail`].
pub fn first_position(packed: bool) -> u16 {
    if packed { WRAP } else { 0 }
}

/// Tells the other side that something happened: an eventfd, a doorbell register, an interrupt.
pub trait Notifier: Debug + Send + Sync {
    /// Notifies once. Never blocks.
    ///
    /// # Errors
    ///
    /// Whatever the operating system says about the underlying file.
    fn notify(&self) -> io::Result<()>;
}

impl Notifier for SharedEventFd {
    fn notify(&self) -> io::Result<()> {
        self.signal()
    }
}

/// Where the three parts of a virtqueue are (virtio 1.2, sections 2.7 and 2.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringLayout {
    /// Whether it is a packed virtqueue, or else a split one.
    pub packed: bool,
    /// Number of descriptors, 1 to 32768: of a split virtqueue, a power of two.
    pub size: u16,
    /// Descriptor table or descriptor ring, aligned to 16 bytes.
    pub desc: GuestAddress,
    /// Driver area (available ring), aligned to 2 bytes or, packed, to 4.
    pub avail: GuestAddress,
    /// Device area (used ring), aligned to 4 bytes.
    pub used: GuestAddress,
}

impl VringLayout {
    /// Whether any of its parts has bytes among the addresses `first..=last`.
    pub fn overlaps(&self, first: u64, last: u64) -> bool {
        self.parts().iter().any(|(start, length, _)| {
            let end = start.0.saturating_add(*length as u64 - 1);
            start.0 <= last && first <= end
        })
    }

    /// Whether all of its parts can be accessed as a device has to.
    pub fn is_in(&self, memory: &GuestMemory) -> bool {
        let mut parts = self.parts().into_iter();
        parts.all(|(start, length, access)| memory.check_range(start, length, access))
    }

    /// Where each part begins, its length in bytes, and what a device does there.
    fn parts(&self) -> [(GuestAddress, usize, Permissions); 3] {
        let size = usize::from(self.size);
        if self.packed {
            return [
                (self.desc, 16 * size, Permissions::ReadWrite),
                (self.avail, 4, Permissions::Read),
                (self.used, 4, Permissions::ReadWrite),
            ];
        }
        // The two rings end with a field of 16 bits for EVENT_IDX, negotiated or not.
        [
            (self.desc, 16 * size, Permissions::Read),
            (self.avail, 6 + 2 * size, Permissions::Read),
            (self.used, 6 + 8 * size, Permissions::ReadWrite),
        ]
    }
}

/// Everything a device needs to run one virtqueue.
#[derive(Clone, Debug)]
pub struct Vring {
    /// Which of the device's queues this is.
    pub index: u16,
    /// The feature bits that were negotiated.
    pub features: u64,
    /// Where the rings are.
    pub layout: VringLayout,
    /// The position of the first request not served yet: in a split virtqueue, its index in the
    /// available ring; in a packed one, its index in bits 0 to 14 and the wrap counter in bit 15.
    pub next_avail: u16,
    /// The driver's memory.
    pub memory: Arc<GuestMemory>,
    /// Becomes readable when the driver added requests. `None`: the device has to poll.
    pub kick: Option<Arc<SharedEventFd>>,
    /// Tells the driver of used buffers. `None`: the driver polls.
    pub call: Option<Arc<dyn Notifier>>,
    /// Tells the carrier that the ring is broken and was stopped.
    pub error: Option<Arc<dyn Notifier>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(packed: bool) -> VringLayout {
        VringLayout {
            packed,
            size: 16,
            desc: GuestAddress(0x1000),
            avail: GuestAddress(0x2000),
            used: GuestAddress(0x3000),
        }
    }

    #[test]
    fn a_split_layout_knows_its_bytes() {
        let layout = layout(false);
        for (first, last, overlaps) in [
            (0, 0xfff, false),
            (0, 0x1000, true),
            (0x10ff, 0x1fff, true),
            (0x1100, 0x1fff, false),
            (0x2025, 0x2fff, true),
            (0x2026, 0x2fff, false),
            (0x3085, u64::MAX, true),
            (0x3086, u64::MAX, false),
        ] {
            assert_eq!(layout.overlaps(first, last), overlaps, "{first:#x}");
        }
        assert!(layout.is_in(&crate::test_utils::memory(0x4000)));
        assert!(!layout.is_in(&crate::test_utils::memory(0x3000)));
    }

    #[test]
    fn a_packed_layout_knows_its_bytes() {
        let layout = layout(true);
        for (first, last, overlaps) in [
            (0x10ff, 0x1fff, true),
            (0x1100, 0x1fff, false),
            (0x2003, 0x2fff, true),
            (0x2004, 0x2fff, false),
            (0x3003, u64::MAX, true),
            (0x3004, u64::MAX, false),
        ] {
            assert_eq!(layout.overlaps(first, last), overlaps, "{first:#x}");
        }
        assert!(layout.is_in(&crate::test_utils::memory(0x3004)));
        assert!(!layout.is_in(&crate::test_utils::memory(0x3003)));
    }
}
