//! What a carrier knows of a virtio device.

use std::io;

use crate::{QueueError, Vring};

/// A virtio device, whatever its type and however it reaches its driver.
pub trait Device: Send + Sync {
    /// The feature bits it offers: those of its type and of its rings.
    fn features(&self) -> u64;

    /// How many virtqueues it has, 1 to 256.
    fn queue_count(&self) -> u16;

    /// The largest virtqueue it runs: a power of two, at most 32768.
    fn max_queue_size(&self) -> u16;

    /// Copies its configuration space from `offset` on. Bytes past its end read as zero, so that a
    /// driver may ask for more than this device's version of the space.
    fn read_config(&self, offset: usize, data: &mut [u8]);

    /// Writes to its configuration space.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when any of the bytes is not the driver's to write; none is written then.
    fn write_config(&self, offset: usize, data: &[u8]) -> Result<(), ConfigError>;

    /// Starts to serve a vring, on threads of the device's own, until the answer is stopped.
    ///
    /// # Errors
    ///
    /// [`StartError`] when the vring's addresses are no good or the operating system refuses.
    fn start(&self, vring: Vring) -> Result<Box<dyn RunningVring>, StartError>;
}

/// A vring that a device is serving.
pub trait RunningVring: Send {
    /// Takes no more requests, finishes those in flight, and returns the index in the available
    /// ring of the first request that was not served. The vring's memory is not touched afterwards.
    fn stop(self: Box<Self>) -> u16;
}

/// A write to the configuration space that the device does not allow.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("configuration space bytes {offset}..{end} are not writable")]
pub struct ConfigError {
    /// First byte of the write.
    pub offset: usize,
    /// One past its last byte.
    pub end: usize,
}

/// Why a vring could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The device has no such queue.
    #[error("the device has no queue {0}")]
    NoSuchQueue(u16),
    /// The rings are not where they were said to be.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The operating system refused what the device needs to serve the ring.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },
}
