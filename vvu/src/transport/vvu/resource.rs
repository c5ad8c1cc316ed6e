//! What takes the place of file descriptors: parts of BARs, interrupts and doorbells.

use std::sync::Arc;

use vhost::vhost_user::message::FrontendReq;
use vmm_sys_util::eventfd::EventFd;

use super::VvuTransport;
use crate::abi::Doorbell;
use crate::transport::{Resource, ResourceError};
use crate::vhost_user::{Message, VringFd, decode_regions};

impl VvuTransport {
    /// What a message brings along.
    pub(super) fn resource(&mut self, message: &Message) -> Result<Resource, ResourceError> {
        match message.code() {
            Some(FrontendReq::SET_MEM_TABLE) => self.memory(message),
            Some(FrontendReq::ADD_MEM_REG) => Err(ResourceError(
                "single memory regions do not pass through a virtio-vhost-user device".to_owned(),
            )),
            Some(FrontendReq::SET_VRING_KICK) => {
                let vring = self.vring_fd(message)?;
                Ok(Resource::Kick(self.kick(vring)))
            }
            Some(FrontendReq::SET_VRING_CALL) => {
                let vring = self.vring_fd(message)?;
                self.notifier(vring, Doorbell::Call(vring.queue))
            }
            Some(FrontendReq::SET_VRING_ERR) => {
                let vring = self.vring_fd(message)?;
                self.notifier(vring, Doorbell::Error(vring.queue))
            }
            _ => Ok(Resource::None),
        }
    }

    fn memory(&mut self, message: &Message) -> Result<Resource, ResourceError> {
        let table = decode_regions(&message.payload).map_err(unusable)?;
        let regions = self.driver.window().map(&table).map_err(unusable)?;
        Ok(Resource::Memory(regions))
    }

    fn vring_fd(&self, message: &Message) -> Result<VringFd, ResourceError> {
        let vring = message.as_vring_fd().map_err(unusable)?;
        if vring.queue < self.driver.queue_count() {
            return Ok(vring);
        }
        Err(ResourceError(format!("there is no vring {}", vring.queue)))
    }

    /// The eventfd of the queue's notification, signalled: a kick may have come before anybody
    /// listened.
    fn kick(&self, vring: VringFd) -> Option<Arc<EventFd>> {
        let kick = self.driver.kick(vring.queue)?;
        if !vring.has_fd {
            return None;
        }
        // It fails only when the counter is at its limit, and the eventfd readable anyway.
        let _ = kick.write(1);
        Some(kick.clone())
    }

    fn notifier(&self, vring: VringFd, doorbell: Doorbell) -> Result<Resource, ResourceError> {
        let doorbell = vring.has_fd.then(|| self.driver.doorbell(doorbell));
        Ok(Resource::Notifier(doorbell.flatten()))
    }
}

fn unusable(error: impl std::fmt::Display) -> ResourceError {
    ResourceError(error.to_string())
}
