//! Handles the messages between the front-end and the driver. The device keeps and uses the file
//! descriptors of messages, and changes some messages. A table in the vhost-user crate lists the
//! messages that are passed on, and the number of descriptors of each message.

use std::os::fd::OwnedFd;

use vhost_user::table::features_without_descriptors;
use vhost_user::{Code, F_LOG_ALL, Message, Request, RequestError, VringFd, VringState};
use vvu_abi::Doorbell;

use super::Refusal;
use super::doorbell::Doorbells;
use super::notification::Notifications;
use super::window::Window;
use crate::poller::Poller;

/// The parts of the device that use the front-end's descriptors.
#[derive(Debug)]
pub(super) struct Resources {
    pub(super) window: Window,
    pub(super) notifications: Notifications,
    pub(super) doorbells: Doorbells,
}

impl Resources {
    /// Takes a front-end's message and its descriptors, and starts to use the descriptors. Returns
    /// the message for the driver, without the parts that the driver must not see. The caller has
    /// to call this method before the driver gets the message.
    pub(super) fn take(
        &mut self,
        message: Message,
        fds: Vec<OwnedFd>,
        poller: &Poller,
    ) -> Result<Message, Refusal> {
        let kind = message.head.kind();
        if kind.is_some_and(|kind| !kind.without_descriptors) {
            return Err(RequestError::WithoutDescriptors.into());
        }
        let changed: Option<Request<OwnedFd>> = match Request::decode(&message, fds)? {
            Request::SetMemTable(table) => {
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
            // The driver cannot log dirty pages, because it does not see the memory of the log.
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

    /// Forgets everything that came from the front-end.
    pub(super) fn disconnect(&mut self, poller: &Poller) {
        self.notifications.disconnect(poller);
        self.doorbells.disconnect();
    }
}

/// Changes a driver's reply for the front-end. Removes the features and the queues that the
/// front-end must not see.
pub(super) fn mask_reply(reply: &mut Message, max_queues: u16) {
    // A malformed payload is passed on unchanged, so that the front-end can refuse it.
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

/// The queue that has stopped. `None` means that the message is not a driver's reply to
/// GET_VRING_BASE.
pub(super) fn stopped_queue(reply: &Message) -> Option<u16> {
    if Code::from_number(reply.head.request) != Some(Code::GET_VRING_BASE) {
        return None;
    }
    let state = VringState::decode(&reply.payload).ok()?;
    u16::try_from(state.index).ok()
}
