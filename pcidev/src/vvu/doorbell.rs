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
            let event = Arc::new(SharedEventFd::new()?);
            poller.add(&*event, Token::Doorbell(queue).into(), Until::Signalled)?;
            events.push(event);
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
    pub(super) fn write(&mut self, offset: u64, len: usize) {
        if !matches!(len, 1 | 2 | 4) || !offset.is_multiple_of(STRIDE) {
            debug!("no doorbell of {len} bytes at {offset:#x}");
            return;
        }
        let index = u32::try_from(offset / STRIDE).unwrap_or(u32::MAX);
        match Doorbell::from_index(index, self.calls.len() as u16) {
            Some(doorbell @ (Doorbell::Call(_) | Doorbell::Error(_))) => self.ring(doorbell),
            Some(Doorbell::Log) | None => debug!("doorbell {index} signals nothing"),
        }
    }

    /// Signals the front-end's eventfd for a doorbell, if the front-end has set an eventfd.
    pub(super) fn ring(&mut self, doorbell: Doorbell) {
        let Some(slot) = self.slot(doorbell) else {
            return;
        };
        match slot.as_ref().map(SharedEventFd::signal_if_room) {
            Some(Ok(())) => {}
            Some(Err(error)) => debug!("{doorbell:?}: cannot signal the front-end: {error}"),
            None => debug!("{doorbell:?}: the front-end has set no eventfd for this doorbell"),
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
        for event in &self.events {
            // `take` resets the eventfd's counter. If a client filled the counter and left, the
            // next client could otherwise not signal the eventfd.
            let _ = event.take();
        }
    }
}

#[cfg(test)]
mod tests;
