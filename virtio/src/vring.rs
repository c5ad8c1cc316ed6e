//! A configured vring on its way to the device that runs it.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use vm_memory::GuestAddress;
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

/// Everything a device needs to run one virtqueue.
#[derive(Clone, Debug)]
pub struct Vring {
    /// Which of the device's queues this is.
    pub index: u16,
    /// The feature bits that were negotiated.
    pub features: u64,
    /// Where the rings are.
    pub layout: VringLayout,
    /// Index in the available ring of the first request not served yet.
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
