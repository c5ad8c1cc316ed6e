//! The notification registers, through which the driver chooses the MSI-X vectors that the
//! front-end's kicks raise.

use std::os::fd::OwnedFd;

use ipc::SharedEventFd;
use tracing::debug;
use virtio::pci::NO_VECTOR;
use vvu_abi::notification as reg;

use super::Refusal;
use super::token::Token;
use crate::padded::read_padded;
use crate::poller::{Poller, Until};

/// The notification registers, and the front-end's eventfds for kicks.
#[derive(Debug)]
pub(super) struct Notifications {
    select: u16,
    /// The number of MSI-X vectors of the function.
    vectors: u16,
    queues: Vec<Notification>,
}

#[derive(Debug)]
struct Notification {
    vector: u16,
    /// Whether a kick came while the queue had no vector.
    pending: bool,
    kick: Option<SharedEventFd>,
}

impl Notification {
    fn new() -> Self {
        Self {
            vector: NO_VECTOR,
            pending: false,
            kick: None,
        }
    }

    /// The vector to raise now, if a kick is pending and the queue has a vector.
    fn raise(&mut self) -> Option<u16> {
        let known = self.vector != NO_VECTOR;
        let raised = (self.pending && known).then_some(self.vector);
        self.pending &= !known;
        raised
    }
}

impl Notifications {
    pub(super) fn new(queues: u16, vectors: u16) -> Self {
        Self {
            select: 0,
            vectors,
            queues: (0..queues).map(|_| Notification::new()).collect(),
        }
    }

    /// Reads the registers. Reads past the last register return 0.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        let mut image = [0; reg::SIZE as usize];
        let vector = self.queues.get(usize::from(self.select));
        let vector = vector.map_or(NO_VECTOR, |queue| queue.vector);
        image[..2].copy_from_slice(&self.select.to_le_bytes());
        image[2..].copy_from_slice(&vector.to_le_bytes());
        read_padded(&image, offset, data);
    }

    /// Writes one of the two registers, or both registers in one access. Returns the vector to
    /// raise now, if a kick has waited for a vector.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Option<u16> {
        match (offset, data) {
            (reg::SELECT, &[a, b]) => {
                self.set_select(u16::from_le_bytes([a, b]));
                None
            }
            (reg::VECTOR, &[a, b]) => self.set_vector(u16::from_le_bytes([a, b])),
            (reg::SELECT, &[a, b, c, d]) => {
                let selected = self.set_select(u16::from_le_bytes([a, b]));
                let vector = u16::from_le_bytes([c, d]);
                selected.then(|| self.set_vector(vector)).flatten()
            }
            _ => {
                debug!(
                    "notifications: no register of {} bytes at {offset:#x}",
                    data.len()
                );
                None
            }
        }
    }

    /// Selects a queue. If the queue does not exist, returns false, and the register keeps its
    /// value.
    fn set_select(&mut self, select: u16) -> bool {
        let exists = usize::from(select) < self.queues.len();
        if exists {
            self.select = select;
        }
        exists
    }

    fn set_vector(&mut self, vector: u16) -> Option<u16> {
        let exists = vector < self.vectors;
        let queue = self.queues.get_mut(usize::from(self.select))?;
        queue.vector = if exists { vector } else { NO_VECTOR };
        queue.raise()
    }

    /// Watches an eventfd for the front-end's kicks of a queue, in place of the previous eventfd.
    /// `None` means that the front-end sends no kicks, and the driver polls the queue.
    pub(super) fn set_kick(
        &mut self,
        queue: u16,
        kick: Option<OwnedFd>,
        poller: &Poller,
    ) -> Result<(), Refusal> {
        self.drop_kick(queue, poller);
        let Some(notification) = self.queues.get_mut(usize::from(queue)) else {
            return Err(Refusal::NoSuchQueue(queue));
        };
        let Some(kick) = kick else { return Ok(()) };
        let kick = SharedEventFd::from_fd(kick)?;
        poller.add(&kick, Token::Kick(queue).into(), Until::Signalled)?;
        notification.kick = Some(kick);
        Ok(())
    }

    /// Stops watching the eventfd for the kicks of a queue.
    pub(super) fn drop_kick(&mut self, queue: u16, poller: &Poller) {
        let queue = self.queues.get_mut(usize::from(queue));
        if let Some(kick) = queue.and_then(|queue| queue.kick.take()) {
            poller.remove(&kick);
        }
    }

    /// Records a kick of a queue. Returns the vector to raise, if the queue already has a vector.
    pub(super) fn kicked(&mut self, queue: u16) -> Option<u16> {
        let notification = self.queues.get_mut(usize::from(queue))?;
        notification.kick.as_ref()?;
        notification.pending = true;
        notification.raise()
    }

    /// Drops the front-end's eventfds and pending kicks.
    pub(super) fn disconnect(&mut self, poller: &Poller) {
        for queue in 0..self.queues.len() as u16 {
            self.drop_kick(queue, poller);
        }
        for queue in &mut self.queues {
            queue.pending = false;
        }
    }

    /// Clears the values that the driver wrote. The caller has to call
    /// [`Notifications::disconnect`] first.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.queues.len() as u16, self.vectors);
    }
}

#[cfg(test)]
mod tests;
