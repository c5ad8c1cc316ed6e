//! Which messages cross, and what of them is changed on the way.

use std::os::fd::OwnedFd;

use vhost::vhost_user::message::FrontendReq;
use vvu::abi::{Doorbell, PROTOCOL_FEATURES};
use vvu::vhost_user::{Message, VringFd};

use super::Refusal;
use super::doorbell::Doorbells;
use super::notification::Notifications;
use super::poller::Poller;
use super::window::Window;

/// `VHOST_F_LOG_ALL`: dirty pages are logged, for which there is no shared memory.
const LOG_ALL: u64 = 1 << 26;

/// What the front-end's file descriptors became.
#[derive(Debug)]
pub(super) struct Resources {
    pub(super) window: Window,
    pub(super) notifications: Notifications,
    pub(super) doorbells: Doorbells,
}

impl Resources {
    /// Takes a front-end's message: puts its file descriptors to use and changes what the driver
    /// must not see of it. To be done before the driver gets it.
    pub(super) fn take(
        &mut self,
        message: &mut Message,
        fds: Vec<OwnedFd>,
        poller: &Poller,
    ) -> Result<(), Refusal> {
        match message.code() {
            Some(FrontendReq::SET_MEM_TABLE) => {
                message.payload = self.window.translate(&message.payload, &fds)?;
            }
            Some(FrontendReq::SET_VRING_KICK) => {
                let (vring, fd) = vring_fd(message, fds)?;
                self.notifications.set_kick(vring.queue, fd, poller)?;
            }
            Some(FrontendReq::SET_VRING_CALL) => {
                let (vring, fd) = vring_fd(message, fds)?;
                self.doorbells.set(Doorbell::Call(vring.queue), fd)?;
            }
            Some(FrontendReq::SET_VRING_ERR) => {
                let (vring, fd) = vring_fd(message, fds)?;
                self.doorbells.set(Doorbell::Error(vring.queue), fd)?;
            }
            Some(FrontendReq::SET_LOG_BASE | FrontendReq::SET_LOG_FD) => {
                return Err(Refusal::new("dirty logs cannot cross"));
            }
            _ if !fds.is_empty() => {
                return Err(Refusal::new("its file descriptor cannot cross"));
            }
            Some(FrontendReq::SET_FEATURES) => mask(message, !LOG_ALL),
            Some(FrontendReq::SET_PROTOCOL_FEATURES) => mask(message, PROTOCOL_FEATURES),
            _ => {}
        }
        Ok(())
    }

    /// Forgets everything of the front-end.
    pub(super) fn disconnect(&mut self, poller: &Poller) {
        self.notifications.disconnect(poller);
        self.doorbells.disconnect();
    }
}

/// Changes what the front-end must not see of a driver's reply.
pub(super) fn mask_reply(reply: &mut Message, max_queues: u16) {
    match reply.code() {
        Some(FrontendReq::GET_FEATURES) => mask(reply, !LOG_ALL),
        Some(FrontendReq::GET_PROTOCOL_FEATURES) => mask(reply, PROTOCOL_FEATURES),
        Some(FrontendReq::GET_QUEUE_NUM) => change(reply, |queues| queues.min(max_queues.into())),
        _ => {}
    }
}

/// The queue that a driver's reply to GET_VRING_BASE stopped.
pub(super) fn stopped_queue(reply: &Message) -> Option<u16> {
    if reply.code() != Some(FrontendReq::GET_VRING_BASE) {
        return None;
    }
    let index = reply.payload.first_chunk().copied()?;
    u16::try_from(u32::from_le_bytes(index)).ok()
}

fn mask(message: &mut Message, bits: u64) {
    change(message, |value| value & bits);
}

/// Changes a payload that is one number. One that should be but is not is for the peer to judge.
fn change(message: &mut Message, change: impl FnOnce(u64) -> u64) {
    if let Ok(value) = message.as_u64() {
        message.payload = change(value).to_le_bytes().to_vec();
    }
}

/// Reads a message that brings one file descriptor, or says that it does not.
fn vring_fd(
    message: &Message,
    mut fds: Vec<OwnedFd>,
) -> Result<(VringFd, Option<OwnedFd>), Refusal> {
    let vring = message.as_vring_fd();
    let vring = vring.map_err(|error| Refusal::new(error.to_string()))?;
    if fds.len() != usize::from(vring.has_fd) {
        let count = fds.len();
        return Err(Refusal(format!("{count} file descriptors came with it")));
    }
    Ok((vring, fds.pop()))
}
