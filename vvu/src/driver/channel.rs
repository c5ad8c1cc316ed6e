//! Exchanges messages through the two virtqueues of the device. Each buffer holds one message.

use std::io;

use vhost_user::{HEADER_SIZE, MAX_PAYLOAD};
use vvu_abi::queue;

use super::dma::Dma;
use super::vector;
use crate::virtio_pci::{DriverQueue, QueueNotify, UsedError, VirtioError, VirtioPci};

/// The maximum number of buffers in a queue. Few buffers are in use at once, because the front-end
/// waits for replies. Mapping more memory for DMA would be costly behind a virtual IOMMU.
const QUEUE_SIZE: u16 = 16;

/// Length of a buffer in bytes. The longest message fits into a buffer, and the length is a
/// multiple of 64.
const BUFFER_SIZE: usize = (HEADER_SIZE + MAX_PAYLOAD).next_multiple_of(64);

/// The reason why no messages can be exchanged until the device is restarted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The device wrote an invalid entry to a used ring.
    #[error(transparent)]
    Used(#[from] UsedError),
    /// A message is longer than a buffer.
    #[error("a message of {0} bytes is too long")]
    TooLong(usize),
    /// The PCI function cannot be accessed.
    #[error("cannot access the device")]
    Access(#[from] io::Error),
}

/// The two virtqueues that carry messages.
#[derive(Debug)]
pub struct Channel {
    rx: DriverQueue,
    rx_notify: QueueNotify,
    tx: DriverQueue,
    tx_notify: QueueNotify,
}

impl Channel {
    /// The maximum size of the memory for the two queues, in bytes.
    pub fn memory_size() -> usize {
        let rx = DriverQueue::end(0, QUEUE_SIZE, BUFFER_SIZE);
        DriverQueue::end(rx, QUEUE_SIZE, BUFFER_SIZE)
    }

    /// Lays out the queues and tells the device their addresses. The device does not use the queues
    /// yet.
    pub fn configure(virtio: &VirtioPci, dma: &Dma) -> Result<Self, VirtioError> {
        let new_queue = |index, start, device_writes| {
            let size = virtio.choose_queue_size(index, QUEUE_SIZE)?;
            let memory = dma.memory.clone();
            let queue = DriverQueue::new(memory, dma.iova, start, size, BUFFER_SIZE, device_writes);
            Ok::<_, VirtioError>(queue)
        };
        let mut rx = new_queue(queue::RX, 0, true)?;
        for id in 0..rx.size() {
            rx.post(id, BUFFER_SIZE);
        }
        let tx = new_queue(
            queue::TX,
            DriverQueue::end(0, rx.size(), BUFFER_SIZE),
            false,
        )?;
        Ok(Self {
            rx_notify: virtio.configure_queue(queue::RX, &rx.layout(), vector::RX)?,
            tx_notify: virtio.configure_queue(queue::TX, &tx.layout(), vector::TX)?,
            rx,
            tx,
        })
    }

    /// Notifies the device of the receive buffers.
    pub fn offer_buffers(&mut self) -> Result<(), ChannelError> {
        Ok(self.rx_notify.notify()?)
    }

    /// Takes the next message. `None` if no message is waiting. The message consists of the bytes
    /// that the device wrote, which are not checked.
    pub fn receive(&mut self) -> Result<Option<Vec<u8>>, ChannelError> {
        let Some(used) = self.rx.take_used()? else {
            return Ok(None);
        };
        // The message is copied before the device gets the buffer back.
        let message = self.rx.copy_out(used);
        self.rx.post(used.id, BUFFER_SIZE);
        self.rx_notify.notify()?;
        Ok(Some(message))
    }

    /// Takes all waiting messages and drops them.
    pub fn discard_received(&mut self) -> Result<(), ChannelError> {
        // A device without a front-end must not fill receive buffers, so at most one message is
        // waiting in each buffer. The number of rounds is limited because a faulty device may fill
        // each buffer again and again.
        for _ in 0..2 * self.rx.size() {
            if self.receive()?.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Sends a message. Returns false if the device still uses all transmit buffers. When the
    /// device returns a buffer, the device raises the TX vector.
    pub fn send(&mut self, message: &[u8]) -> Result<bool, ChannelError> {
        if message.len() > BUFFER_SIZE {
            return Err(ChannelError::TooLong(message.len()));
        }
        while self.tx.take_used()?.is_some() {}
        let Some(id) = self.tx.free_buffer() else {
            return Ok(false);
        };
        self.tx.fill(id, message);
        self.tx.post(id, message.len());
        self.tx_notify.notify()?;
        Ok(true)
    }

    /// Whether a message from the front-end is waiting.
    pub fn has_message(&self) -> bool {
        self.rx.has_used()
    }
}
