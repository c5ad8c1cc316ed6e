//! A configured vring on its way to the device that runs it.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use vm_memory::{GuestAddress, GuestMemory as _, Permissions};
use vmm_sys_util::eventfd::EventFd;

use crate::GuestMemory;

/// Tells the other side that something happened: an eventfd, a doorbell register, an interrupt.
pub trait Notifier: Debug + Send + Sync {
    /// Notifies once. Never blocks.
    ///
    /// # Errors
    ///
    /// Whatever the operating system says about the underlying file.
    fn notify(&self) -> io::Result<()>;
}

impl Notifier for EventFd {
    fn notify(&self) -> io::Result<()> {
        match self.write(1) {
            // The counter is at its limit, so a wake-up is already pending.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            result => result,
        }
    }
}

/// Where the three parts of a split virtqueue are (virtio 1.2, section 2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringLayout {
    /// Number of descriptors: a power of two, 1 to 32768.
    pub size: u16,
    /// Descriptor table, aligned to 16 bytes.
    pub desc: GuestAddress,
    /// Driver area (available ring), aligned to 2 bytes.
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
    /// The position in the rings of the first request not served yet.
    pub next_avail: u16,
    /// The driver's memory.
    pub memory: Arc<GuestMemory>,
    /// Becomes readable when the driver added requests. `None`: the device has to poll.
    pub kick: Option<Arc<EventFd>>,
    /// Tells the driver of used buffers. `None`: the driver polls.
    pub call: Option<Arc<dyn Notifier>>,
    /// Tells the carrier that the ring is broken and was stopped.
    pub error: Option<Arc<dyn Notifier>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_knows_its_bytes() {
        let layout = VringLayout {
            size: 16,
            desc: GuestAddress(0x1000),
            avail: GuestAddress(0x2000),
            used: GuestAddress(0x3000),
        };
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
}
