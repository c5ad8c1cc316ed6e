//! The configuration of a vring, as its driver chose it.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use ipc::SharedEventFd;
use vm_memory::{GuestAddress, GuestMemory as _, Permissions};

use crate::GuestMemory;

/// The bit of the wrap counter in positions of a packed virtqueue. The bit is set in the first lap
/// around the ring, and changes with each lap.
pub(crate) const WRAP: u16 = 1 << 15;

/// The position of the first request in a new virtqueue, in the encoding of [`Vring::next_avail`].
pub fn first_position(packed: bool) -> u16 {
    if packed { WRAP } else { 0 }
}

/// Sends notifications of one kind of event, through an eventfd, a doorbell register or an
/// interrupt.
pub trait Notifier: Debug + Send + Sync {
    /// Sends one notification. A peer may be able to make this call block. The call then fails
    /// after some milliseconds.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::TimedOut`] if a peer made this call block, or the error of the operating
    /// system for the file behind the notifier. The caller should then no longer use the notifier.
    fn notify(&self) -> io::Result<()>;
}

impl Notifier for SharedEventFd {
    fn notify(&self) -> io::Result<()> {
        self.signal()
    }
}

/// The layout of a virtqueue: its size and the addresses of its three parts (virtio 1.2, sections
/// 2.7 and 2.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringLayout {
    /// Whether the virtqueue is packed. If false, the virtqueue is split.
    pub packed: bool,
    /// Number of descriptors, 1 to 32768. For a split virtqueue the number is a power of two.
    pub size: u16,
    /// Address of the descriptor table (split) or of the descriptor ring (packed), aligned to 16
    /// bytes.
    pub desc: GuestAddress,
    /// Address of the driver area (available ring), aligned to 2 bytes, or to 4 bytes for a packed
    /// virtqueue.
    pub avail: GuestAddress,
    /// Address of the device area (used ring), aligned to 4 bytes.
    pub used: GuestAddress,
}

impl VringLayout {
    /// Whether any part of the virtqueue has bytes at the addresses `first..=last`.
    pub fn overlaps(&self, first: u64, last: u64) -> bool {
        self.parts().iter().any(|(start, length, _)| {
            let end = start.0.saturating_add(*length as u64 - 1);
            start.0 <= last && first <= end
        })
    }

    /// Whether all parts of the virtqueue are in `memory`, and the memory allows the accesses that
    /// a device makes to them.
    pub fn is_in(&self, memory: &GuestMemory) -> bool {
        let mut parts = self.parts().into_iter();
        parts.all(|(start, length, access)| memory.check_range(start, length, access))
    }

    /// The address of each part, the part's length in bytes, and the accesses that a device makes
    /// to the part.
    fn parts(&self) -> [(GuestAddress, usize, Permissions); 3] {
        let size = usize::from(self.size);
        if self.packed {
            return [
                (self.desc, 16 * size, Permissions::ReadWrite),
                (self.avail, 4, Permissions::Read),
                (self.used, 4, Permissions::ReadWrite),
            ];
        }
        // The available ring and the used ring each end with a field of 16 bits for EVENT_IDX, even
        // if EVENT_IDX is not negotiated.
        [
            (self.desc, 16 * size, Permissions::Read),
            (self.avail, 6 + 2 * size, Permissions::Read),
            (self.used, 6 + 8 * size, Permissions::ReadWrite),
        ]
    }
}

/// Everything that a runner needs to serve one virtqueue.
#[derive(Clone, Debug)]
pub struct Vring {
    /// The index of the queue in its device.
    pub index: u16,
    /// The feature bits that were negotiated.
    pub features: u64,
    /// The layout of the virtqueue.
    pub layout: VringLayout,
    /// The position of the first request that has not been served yet. In a split virtqueue, the
    /// position is the request's index in the available ring. In a packed virtqueue, bits 0 to 14
    /// are the request's index in the descriptor ring, and bit 15 is the wrap counter.
    pub next_avail: u16,
    /// The driver's memory.
    pub memory: Arc<GuestMemory>,
    /// The eventfd that becomes readable when the driver has added requests. With `None` the device
    /// has to poll the queue.
    pub kick: Option<Arc<SharedEventFd>>,
    /// The notifier that tells the driver of used buffers. With `None` the driver polls the queue.
    pub call: Option<Arc<dyn Notifier>>,
    /// The notifier that tells the carrier that the queue has failed.
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
    fn a_split_layout_covers_its_rings_and_nothing_else() {
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
    fn a_packed_layout_covers_its_rings_and_nothing_else() {
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
