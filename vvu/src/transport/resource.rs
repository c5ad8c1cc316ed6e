//! Replaces the front-end's file descriptors by parts of BARs, interrupts and doorbells.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use ipc::SharedEventFd;
use vhost_user::{Absent, Attach, AttachError, Attached, MemoryTable, Signal};
use virtio::{Notifier, Region};
use vvu_abi::Doorbell;

use crate::driver::VvuDriver;

/// Puts the device's memory window, interrupts and doorbells into requests instead of the
/// front-end's descriptors.
pub struct Signals<'a>(pub &'a mut VvuDriver);

impl Attach for Signals<'_> {
    type Descriptor = Absent;
    type Into = Attached;

    fn memory(
        &mut self,
        table: MemoryTable<Absent>,
    ) -> Result<MemoryTable<Arc<Region>>, AttachError> {
        let mapped = self.0.window().map(table);
        mapped.map_err(|error| AttachError::Transport(error.into()))
    }

    /// Returns the eventfd of the queue's kicks. The front-end may have kicked the queue before
    /// this call. This function therefore signals the eventfd, so that the caller checks the queue
    /// once.
    fn kick(&mut self, index: u8, _: Absent) -> Result<Arc<SharedEventFd>, AttachError> {
        let kick = self.0.kick(index.into());
        let kick = kick.ok_or(AttachError::NoSuchVring(index))?;
        // `signal` fails only when the eventfd's counter is at its limit. In that case the eventfd
        // is readable anyway.
        let _ = kick.signal();
        Ok(kick.clone())
    }

    fn notifier(
        &mut self,
        index: u8,
        signal: Signal,
        _: Absent,
    ) -> Result<Option<Arc<dyn Notifier>>, AttachError> {
        if u16::from(index) >= self.0.queue_count() {
            return Err(AttachError::NoSuchVring(index));
        }
        let doorbell = match signal {
            Signal::Call => Doorbell::Call(index.into()),
            Signal::Error => Doorbell::Error(index.into()),
        };
        Ok(self.0.doorbell(doorbell))
    }

    fn file(&mut self, _: Absent) -> Result<OwnedFd, AttachError> {
        Err(AttachError::Absent)
    }
}
