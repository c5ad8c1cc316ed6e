//! Messages between the front-end's socket and the two virtqueues.

use std::time::Duration;

use tracing::{debug, warn};
use vhost_user::{DecodeError, HEADER_SIZE, Head, MAX_PAYLOAD, Message, WithCauses};
use virtio::{BufferError, Chain, Queue, QueueError};
use vvu_abi as abi;

use super::VvuDevice;
use crate::virtio_pci::BrokenQueue;
use crate::vvu::front_end::FrontEnd;
use crate::vvu::{Refusal, relay};

/// The maximum number of the front-end's messages that the device takes before it handles other
/// events.
const BATCH: usize = 64;

/// The maximum number of the driver's messages that the device takes after one kick. Correct
/// drivers send fewer messages at once.
const MAX_TX: usize = 1024;

/// A mistake of the driver.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("a virtqueue is broken")]
    Queue(#[from] BrokenQueue),
    #[error("a virtqueue is broken")]
    Ring(#[from] QueueError),
    #[error(transparent)]
    Buffer(#[from] BufferError),
    #[error("its rx buffer has {have} bytes, and a message {need}")]
    RxTooSmall { have: u64, need: usize },
    #[error("its tx chain of {0} bytes is not a message")]
    TxLength(u64),
    #[error("it sends bytes that are not a vhost-user message")]
    Decode(#[from] DecodeError),
}

impl VvuDevice {
    /// Handles an event at the front-end's socket. The front-end has sent data, or has left.
    pub(super) fn front_end_ready(&mut self) {
        let Some(front_end) = &self.front_end else {
            return;
        };
        // While a message waits for a buffer of the driver, the socket is watched only for a
        // hang-up. So this event is a hang-up.
        match front_end.waiting {
            Some(_) => self.lose_front_end("it left"),
            None => self.receive(),
        }
    }

    /// Drops a front-end that did not complete its message in time.
    pub(super) fn drop_late_front_end(&mut self) {
        let front_end = self.front_end.as_ref();
        if front_end.and_then(FrontEnd::time_left) == Some(Duration::ZERO) {
            self.receive();
        }
    }

    /// Delivers the waiting message, after the driver added rx buffers.
    pub(super) fn deliver_waiting(&mut self) {
        let waiting = self
            .front_end
            .as_ref()
            .is_some_and(|front_end| front_end.waiting.is_some());
        if waiting && self.deliver() {
            self.set_reading(true);
            self.receive();
        }
    }

    /// Passes the front-end's messages on, as long as the driver has buffers for them.
    fn receive(&mut self) {
        for _ in 0..BATCH {
            if !self.receive_one() {
                return;
            }
            if !self.deliver() {
                return self.set_reading(false);
            }
        }
    }

    /// Takes the next message and its file descriptors. Returns false if no message has arrived or
    /// the connection has ended.
    fn receive_one(&mut self) -> bool {
        let Some(front_end) = &mut self.front_end else {
            return false;
        };
        let (message, fds) = match front_end.recv() {
            Ok(Some(received)) => received,
            Ok(None) => return false,
            Err(error) => {
                self.lose_front_end(&WithCauses(&error).to_string());
                return false;
            }
        };
        let head = message.head;
        debug!("front-end sends {}", head.name());
        match self.resources.take(message, fds, &self.poller) {
            Ok(message) => front_end.waiting = Some(message),
            Err(refusal) => self.refuse(head, &refusal),
        }
        true
    }

    /// Tells the front-end that its message cannot be passed on. If the protocol has no reply for
    /// this purpose, drops the front-end.
    fn refuse(&mut self, head: Head, refusal: &Refusal) {
        warn!(
            "front-end's {} is refused: {}",
            head.name(),
            WithCauses(refusal)
        );
        // The argument says that acknowledgements (REPLY_ACK) were negotiated. `true` is always
        // correct here, because a front-end that has not negotiated REPLY_ACK asks for no
        // acknowledgement.
        match head.refusal(true) {
            Some(reply) => self.send(&head.reply(&reply.payload)),
            None => self.lose_front_end("its message cannot be passed on"),
        }
    }

    fn set_reading(&mut self, reading: bool) {
        let Some(front_end) = &self.front_end else {
            return;
        };
        if let Err(error) = front_end.set_reading(reading, &self.poller) {
            self.lose_front_end(&error.to_string());
        }
    }

    /// Gives the waiting message, if there is one, to the driver. Returns false if the driver has
    /// no buffer for the message.
    fn deliver(&mut self) -> bool {
        let Some(front_end) = &mut self.front_end else {
            return true;
        };
        let Some(message) = front_end.waiting.take() else {
            return true;
        };
        match self.put(&message) {
            Ok(true) => return true,
            Ok(false) => {}
            Err(fault) => self.fail(&WithCauses(&fault).to_string()),
        }
        if let Some(front_end) = &mut self.front_end {
            front_end.waiting = Some(message);
        }
        false
    }

    /// Puts a message into one chain of rxq. Returns false if the driver has added no chain.
    fn put(&mut self, message: &Message) -> Result<bool, Fault> {
        let Some(ring) = self
            .rx
            .ring(&self.structures.registers, &mut self.function.dma)?
        else {
            return Ok(false);
        };
        let mut chain = Chain::default();
        if !pop(ring, &mut chain)? {
            return Ok(false);
        }
        let bytes = message.encode();
        let (have, need) = (chain.writable.len(), bytes.len());
        if have < need as u64 {
            return Err(Fault::RxTooSmall { have, need });
        }
        chain.writable.write(ring.memory(), 0, &bytes)?;
        ring.push_used(chain.head, need as u32)?;
        if ring.needs_call()? {
            let vector = self.structures.registers.queue_used(abi::queue::RX);
            self.function.msix.trigger(vector);
        }
        Ok(true)
    }

    /// Takes the driver's messages from txq and passes them on.
    pub(super) fn transmit(&mut self) {
        for _ in 0..MAX_TX {
            match self.take() {
                Ok(Some(message)) => self.forward(message),
                Ok(None) => return,
                Err(fault) => return self.fail(&WithCauses(&fault).to_string()),
            }
        }
    }

    /// Takes a message out of one chain of txq. `None` means that the driver has added no chain.
    fn take(&mut self) -> Result<Option<Message>, Fault> {
        let Some(ring) = self
            .tx
            .ring(&self.structures.registers, &mut self.function.dma)?
        else {
            return Ok(None);
        };
        let mut chain = Chain::default();
        if !pop(ring, &mut chain)? {
            return Ok(None);
        }
        let len = chain.readable.len();
        if len > (HEADER_SIZE + MAX_PAYLOAD) as u64 {
            return Err(Fault::TxLength(len));
        }
        let mut bytes = vec![0; len as usize];
        chain.readable.read(ring.memory(), 0, &mut bytes)?;
        let message = Message::decode(&bytes)?;
        ring.push_used(chain.head, 0)?;
        if ring.needs_call()? {
            let vector = self.structures.registers.queue_used(abi::queue::TX);
            self.function.msix.trigger(vector);
        }
        Ok(Some(message))
    }

    /// Passes a driver's reply on to the front-end. Drops the reply if no front-end is connected.
    /// Drops a request, because the protocol of the device has no channel for requests to the
    /// front-end.
    fn forward(&mut self, mut message: Message) {
        let head = message.head;
        if !head.is_reply() || self.front_end.is_none() {
            return debug!("driver's {} is dropped", head.name());
        }
        debug!("driver answers {}", head.name());
        relay::mask_reply(&mut message, self.options.max_vhost_queues);
        self.send(&message);
        if let Some(queue) = relay::stopped_queue(&message) {
            self.resources.notifications.drop_kick(queue, &self.poller);
        }
    }

    fn send(&mut self, message: &Message) {
        let sent = self
            .front_end
            .as_mut()
            .map(|front_end| front_end.send(message));
        if let Some(Err(error)) = sent {
            self.lose_front_end(&WithCauses(&error).to_string());
        }
    }
}

/// Takes the next chain. If there is no chain, asks the driver to kick when it adds a chain, and
/// returns false.
fn pop(ring: &mut Queue, chain: &mut Chain) -> Result<bool, QueueError> {
    while !ring.pop(chain)? {
        if !ring.enable_kick()? {
            return Ok(false);
        }
    }
    Ok(true)
}
