//! A queue that gives its memory up whenever the client changes the memory it shares.

use virtio::vring::first_position;
use virtio::{Queue, QueueError};

use super::Registers;
use crate::dma::DmaTable;

/// A virtqueue of a device that serves it on the spot, so that no request is ever in flight.
#[derive(Debug)]
pub struct RingQueue {
    index: u16,
    /// Where it was left since the last reset.
    next_avail: Option<u16>,
    ring: Option<Queue>,
}

/// Why a queue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BrokenQueue {
    /// The client shares no memory.
    #[error("the client shares no memory")]
    NoMemory,
    /// The rings are not what they should be.
    #[error(transparent)]
    Ring(#[from] QueueError),
}

impl RingQueue {
    /// Queue number `index` of a device.
    pub fn new(index: u16) -> Self {
        Self {
            index,
            next_avail: None,
            ring: None,
        }
    }

    /// Which of the device's queues this is.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Forgets the queue, as a reset does.
    pub fn reset(&mut self) {
        *self = Self::new(self.index);
    }

    /// Gives the client's memory up, until the queue is used again.
    pub fn release_memory(&mut self) {
        if let Some(ring) = self.ring.take() {
            self.next_avail = Some(ring.next_avail());
        }
    }

    /// The queue, ready to use; `None` as long as the driver has not enabled it.
    ///
    /// # Errors
    ///
    /// [`BrokenQueue`]; the device needs a reset then.
    pub fn ring(
        &mut self,
        registers: &Registers,
        dma: &mut DmaTable,
    ) -> Result<Option<&mut Queue>, BrokenQueue> {
        let Some(layout) = registers.queue(self.index) else {
            return Ok(None);
        };
        if self.ring.is_none() {
            let memory = dma.memory().ok_or(BrokenQueue::NoMemory)?;
            let features = registers.features();
            let next = self.next_avail.unwrap_or(first_position(layout.packed));
            self.ring = Some(Queue::new(memory, layout, features, next)?);
        }
        Ok(self.ring.as_mut())
    }
}
