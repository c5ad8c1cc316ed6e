//! Queues that are served by the event loop, not by separate threads.

use virtio::vring::first_position;
use virtio::{Queue, QueueError};

use super::Registers;
use crate::dma::DmaTable;

/// A virtqueue that is served by the event loop, not by a separate thread. The event loop completes
/// each request at once, so no request is ever in flight.
#[derive(Debug)]
pub struct RingQueue {
    index: u16,
    /// The position of the next request in the ring. `None` means that the queue has not run since
    /// the last reset.
    next_avail: Option<u16>,
    ring: Option<Queue>,
}

/// The reason for which a queue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BrokenQueue {
    /// The client shares no memory.
    #[error("the client shares no memory")]
    NoMemory,
    /// The rings are not valid.
    #[error(transparent)]
    Ring(#[from] QueueError),
}

impl RingQueue {
    /// The queue with number `index`.
    pub fn new(index: u16) -> Self {
        Self {
            index,
            next_avail: None,
            ring: None,
        }
    }

    /// Sets the queue back to the state after a reset.
    pub fn reset(&mut self) {
        *self = Self::new(self.index);
    }

    /// Releases the client's memory until the queue is used again.
    pub fn release_memory(&mut self) {
        if let Some(ring) = self.ring.take() {
            self.next_avail = Some(ring.next_avail());
        }
    }

    /// The queue, ready to use. `None` means that the driver does not use the queue yet.
    ///
    /// # Errors
    ///
    /// [`BrokenQueue`]. The driver then has to reset the device.
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
