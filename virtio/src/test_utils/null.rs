//! A device that does nothing.

use crate::{Chain, Device, DeviceKind, ServeError, ServedQueue, Wake};

/// A device that gives each buffer back untouched.
#[derive(Clone, Copy, Debug)]
pub struct NullDevice {
    /// Number of queues.
    pub queues: u16,
    /// The feature bits that the device offers in addition to those of rings.
    pub features: u64,
}

impl Device for NullDevice {
    fn kind(&self) -> DeviceKind {
        DeviceKind { id: 42, class: 0 }
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_count(&self) -> u16 {
        self.queues
    }

    fn serve(&self, queue: &mut ServedQueue, wake: &Wake) -> Result<(), ServeError> {
        let mut chain = Chain::default();
        while queue.next(&mut chain, wake)? {
            queue.give_back(&chain, 0)?;
        }
        Ok(())
    }
}
