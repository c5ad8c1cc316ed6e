//! What of messages is put to use or changed on their way. Which of them cross, and how many
//! descriptors they bring, says the table of vhost-user.

use std::os::fd::{BorrowedFd, OwnedFd};

use vhost_user::table::features_without_descriptors;
use vhost_user::{
    Code, F_LOG_ALL, Inspect, MemoryTable, Message, Request, RequestError, VringFd, VringState,
};
use vvu_abi::Doorbell;

use super::Refusal;
use super::doorbell::Doorbells;
use super::notification::Notifications;
use super::window::Window;
use crate::poller::Poller;

/// What the front-end's descriptors became.
#[derive(Debug)]
pub(super) struct Resources {
    pub(super) window: Window,
    pub(super) notifications: Notifications,
    pub(super) doorbells: Doorbells,
    pub(super) inspector: Option<Box<dyn Inspect>>,
}

impl Resources {
    /// Takes a message of the front-end at `socket`: puts its descriptors to use and gives the
    /// message for the driver, without what it must not see. To be done before the driver gets it.
    pub(super) fn take(
        &mut self,
        message: Message,
        fds: Vec<OwnedFd>,
        socket: BorrowedFd<'_>,
        poller: &Poller,
    ) -> Result<Message, Refusal> {
        let kind = message.head.kind();
        if kind.is_some_and(|kind| !kind.without_descriptors) {
            return Err(RequestError::WithoutDescriptors.into());
        }
        let changed: Option<Request<OwnedFd>> = match Request::decode(&message, fds)? {
            Request::SetMemTable(table) => {
                self.inspect(&table, socket)?;
                Some(Request::SetMemTable(self.window.translate(table)?))
            }
            Request::SetVringKick(VringFd { index, fd }) => {
                self.notifications.set_kick(index.into(), fd, poller)?;
                None
            }
            Request::SetVringCall(VringFd { index, fd }) => {
                self.doorbells.set(Doorbell::Call(index.into()), fd)?;
                None
            }
            Request::SetVringErr(VringFd { index, fd }) => {
                self.doorbells.set(Doorbell::Error(index.into()), fd)?;
                None
            }
            // Dirty pages would be logged in memory that the driver does not see.
            Request::SetFeatures(features) => Some(Request::SetFeatures(features & !F_LOG_ALL)),
            Request::SetProtocolFeatures(features) => {
                let features = features & features_without_descriptors();
                Some(Request::SetProtocolFeatures(features))
            }
            _ => None,
        };
        let Some(changed) = changed else {
            return Ok(message);
        };
        let (Message { payload, .. }, _) = changed.encode();
        Ok(Message { payload, ..message })
    }

    fn inspect(
        &mut self,
        table: &MemoryTable<OwnedFd>,
        socket: BorrowedFd<'_>,
    ) -> Result<(), Refusal> {
        let Some(inspector) = &mut self.inspector else {
            return Ok(());
        };
        let user_addrs: Vec<_> = table
            .regions()
            .iter()
            .map(|region| region.user_addr)
            .collect();
        let inspected = inspector.inspect(socket, &user_addrs);
        inspected.map_err(Refusal::Inspection)
    }

    /// Forgets everything of the front-end.
    pub(super) fn disconnect(&mut self, poller: &Poller) {
        self.notifications.disconnect(poller);
        self.doorbells.disconnect();
    }
}

/// Changes what the front-end must not see of a driver's reply.
pub(super) fn mask_reply(reply: &mut Message, max_queues: u16) {
    // A payload that should be a number but is not is for the front-end to judge.
    let Some(value) = reply.as_number() else {
        return;
    };
    let value = match Code::from_number(reply.head.request) {
        Some(Code::GET_FEATURES) => value & !F_LOG_ALL,
        Some(Code::GET_PROTOCOL_FEATURES) => value & features_without_descriptors().bits(),
        Some(Code::GET_QUEUE_NUM) => value.min(max_queues.into()),
        _ => return,
    };
    reply.payload = value.to_le_bytes().to_vec();
}

/// The queue that a driver's reply to GET_VRING_BASE stopped.
pub(super) fn stopped_queue(reply: &Message) -> Option<u16> {
    if Code::from_number(reply.head.request) != Some(Code::GET_VRING_BASE) {
        return None;
    }
    let state = VringState::decode(&reply.payload).ok()?;
    u16::try_from(state.index).ok()
}
