//! Doorbells are registers. A driver's write to a doorbell signals an eventfd of the front-end.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ipc::SharedEventFd;
use tracing::debug;
use vfio_user::IoEventFd;
use vvu_abi::Doorbell;

use super::Refusal;
use super::token::Token;
use crate::poller::{Poller, Until};

/// Distance in bytes between two adjacent doorbells.
pub(super) const STRIDE: u64 = 4;

/// The doorbells of all queues.
#[derive(Debug)]
pub(super) struct Doorbells {
    calls: Vec<Option<SharedEventFd>>,
    errors: Vec<Option<SharedEventFd>>,
    /// One eventfd for each call doorbell. Clients may signal the eventfd instead of writing the
    /// doorbell.
    events: Vec<Arc<SharedEventFd>>,
}

impl Doorbells {
    pub(super) fn new(queues: u16, poller: &Poller) -> io::Result<Self> {
        let empty = || (0..queues).map(|_| None).collect();
        let mut events = Vec::new();
        for queue in 0..queues {
            events.push(new_event(queue, poller)?);
        }
        Ok(Self {
            calls: empty(),
            errors: empty(),
            events,
        })
    }

    /// The eventfds that clients may signal instead of writing call doorbells. Each eventfd stands
    /// for writes of any length and value.
    pub(super) fn io_event_fds(&self) -> Vec<IoEventFd> {
        let doorbells = (0..).step_by(STRIDE as usize).zip(&self.events);
        let entry = |(offset, event): (u64, &Arc<SharedEventFd>)| IoEventFd {
            offset,
            size: 0,
            eventfd: event.clone(),
            datamatch: None,
        };
        doorbells.map(entry).collect()
    }

    /// Handles a write to a doorbell. The written value does not matter. A write of a length other
    /// than 1, 2 or 4 bytes is ignored.
    ///
    /// # Errors
    ///
    /// As for [`Doorbells::ring`].
    pub(super) fn write(&mut self, offset: u64, len: usize) -> io::Result<()> {
        if !matches!(len, 1 | 2 | 4) || !offset.is_multiple_of(STRIDE) {
            debug!("no doorbell of {len} bytes at {offset:#x}");
            return Ok(());
        }
        let index = u32::try_from(offset / STRIDE).unwrap_or(u32::MAX);
        match Doorbell::from_index(index, self.calls.len() as u16) {
            Some(doorbell) => self.ring(doorbell),
            None => Ok(()),
        }
    }

    /// Signals the front-end's eventfd for a doorbell, if the front-end has set an eventfd.
    ///
    /// # Errors
    ///
    /// When the front-end made the signal block, for some milliseconds. The caller then has to drop
    /// the front-end, so that it cannot delay the client again.
    pub(super) fn ring(&mut self, doorbell: Doorbell) -> io::Result<()> {
        match self.slot(doorbell) {
            Some(Some(eventfd)) => eventfd.signal(),
            Some(None) | None => {
                debug!("{doorbell:?}: the front-end has set no eventfd for this doorbell");
                Ok(())
            }
        }
    }

    /// Sets the eventfd that a doorbell signals from now on. `None` means that the doorbell signals
    /// nothing.
    pub(super) fn set(&mut self, doorbell: Doorbell, fd: Option<OwnedFd>) -> Result<(), Refusal> {
        let slot = self.slot(doorbell);
        let slot = slot.ok_or(Refusal::NoSuchQueue(doorbell.queue()))?;
        *slot = None;
        *slot = fd.map(SharedEventFd::from_fd).transpose()?;
        Ok(())
    }

    fn slot(&mut self, doorbell: Doorbell) -> Option<&mut Option<SharedEventFd>> {
        match doorbell {
            Doorbell::Call(queue) => self.calls.get_mut(usize::from(queue)),
            Doorbell::Error(queue) => self.errors.get_mut(usize::from(queue)),
            Doorbell::Log => None,
        }
    }

    /// Drops the front-end's eventfds.
    pub(super) fn disconnect(&mut self) {
        self.calls.fill_with(|| None);
        self.errors.fill_with(|| None);
    }

    /// Replaces the eventfds of [`Doorbells::io_event_fds`].
    ///
    /// # Errors
    ///
    /// When the operating system is out of descriptors. Some eventfds are not replaced then.
    pub(super) fn replace_events(&mut self, poller: &Poller) -> io::Result<()> {
        for (queue, event) in (0..).zip(&mut self.events) {
            let new = new_event(queue, poller)?;
            poller.remove(&**event);
            *event = new;
        }
        Ok(())
    }
}

/// An eventfd that clients may signal instead of writing the call doorbell of a queue.
fn new_event(queue: u16, poller: &Poller) -> io::Result<Arc<SharedEventFd>> {
    let event = Arc::new(SharedEventFd::new()?);
    poller.add(&*event, Token::Doorbell(queue).into(), Until::Signalled)?;
    Ok(event)
}

#[cfg(test)]
mod tests;
