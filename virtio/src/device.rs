//! The interface of virtio devices.

use std::io;
use std::sync::Arc;

use crate::served::{ServeError, ServedQueue};
use crate::vring::Notifier;
use crate::wake::Wake;

/// A virtio device of any type, behind any carrier (transport).
///
/// A device does not handle threads, carriers or ring features. The device's
/// [`Runner`](crate::Runner) owns the queues, and calls [`Device::serve`] for each queue on a
/// separate thread.
pub trait Device: Send + Sync {
    /// The type of the device.
    fn kind(&self) -> DeviceKind;

    /// The feature bits of the device type: bits 0 to 23 and 50 to 63 (virtio 1.2, section 2.2).
    /// The runner adds VIRTIO_F_VERSION_1 and the feature bits of rings.
    fn features(&self) -> u64;

    /// Number of virtqueues, 1 to 256.
    fn queue_count(&self) -> u16;

    /// Copies bytes of the configuration space from `offset` on to `data`. Bytes past the end of
    /// the configuration space read as zero, because a driver for a later version of the device may
    /// expect a longer configuration space.
    ///
    /// The default implementation returns only zeros. It is for devices without a configuration
    /// space.
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let _ = offset;
        data.fill(0);
    }

    /// Writes to the configuration space. Does not block.
    ///
    /// The default implementation refuses all writes. It is for devices whose configuration space
    /// is read-only.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when the driver may not write one of the bytes. The configuration space is
    /// then unchanged.
    fn write_config(&self, offset: usize, data: &[u8]) -> Result<(), ConfigError> {
        Err(ConfigError::new(offset, data))
    }

    /// Keeps `notifier`, and sends a notification through it whenever the configuration space
    /// changes, unless the driver itself made the change. A later call of this method replaces the
    /// notifier.
    ///
    /// The default implementation drops the notifier. It is for devices whose configuration space
    /// changes only through writes of the driver.
    fn watch_config(&self, notifier: Arc<dyn Notifier>) {
        drop(notifier);
    }

    /// Gets resources that a jailed process cannot get, such as io_uring instances. The program
    /// calls this method once, before it enters its jail.
    ///
    /// # Errors
    ///
    /// When the operating system does not grant a resource that the device needs.
    fn prepare(&self) -> io::Result<()> {
        Ok(())
    }

    /// Serves a queue until a stop is requested through `wake`. Before this method returns, the
    /// device gives back every chain that it took from the queue. After the return the device must
    /// not access the driver's memory for this queue.
    ///
    /// The runner makes all calls for one queue from the same thread, one after another.
    ///
    /// # Errors
    ///
    /// [`ServeError`] when the queue cannot be served any longer. The runner reports this error.
    fn serve(&self, queue: &mut ServedQueue, wake: &Wake) -> Result<(), ServeError>;
}

/// The type of a virtio device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceKind {
    /// The virtio device id (virtio 1.2, section 5), 1 to 63.
    pub id: u16,
    /// The PCI class code: class (bits 16 to 23), subclass (bits 8 to 15) and programming interface
    /// (bits 0 to 7).
    pub class: u32,
}

/// A write to the configuration space that the device does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bytes {offset}..{end} of the configuration space are not all writable")]
pub struct ConfigError {
    /// The first byte of the write.
    pub offset: usize,
    /// The end of the write: one past its last byte.
    pub end: usize,
}

impl ConfigError {
    /// The error for a write of `data` at `offset`.
    pub fn new(offset: usize, data: &[u8]) -> Self {
        Self {
            offset,
            end: offset.saturating_add(data.len()),
        }
    }
}
