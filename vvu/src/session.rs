//! The back-end's side of a vhost-user conversation.
//!
//! It answers one front-end at a time, whatever transport it comes through, keeps the state of
//! memory and vrings, and hands each vring that is complete to the device. A vring that runs is
//! never changed: it is stopped, changed and started again, so that the device sees one simple
//! life cycle and the front-end may send its messages in any order.

mod error;
mod memory;
mod vring;

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use vhost::vhost_user::message::{
    FrontendReq, VhostUserConfig, VhostUserProtocolFeatures as ProtocolFeatures,
    VhostUserVirtioFeatures, VhostUserVringAddr, VhostUserVringState,
};
use virtio::Device;
use virtio::queue::PACKED;
use vm_memory::ByteValued;

use crate::transport::{Event, MemoryRegion, Request, Resource, Transport, TransportError};
use crate::vhost_user::{Message, PayloadError};
use error::RequestError;
use memory::{MAX_SLOTS, MemoryTable};
use vring::{UserLayout, VringState};

/// The feature bit that says that there are protocol features.
const F_PROTOCOL_FEATURES: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// The protocol features of this session, whatever the transport makes of them.
const PROTOCOL_FEATURES: ProtocolFeatures = ProtocolFeatures::MQ
    .union(ProtocolFeatures::REPLY_ACK)
    .union(ProtocolFeatures::CONFIG)
    .union(ProtocolFeatures::CONFIGURE_MEM_SLOTS);

/// The longest configuration space that a front-end may ask for, in bytes.
const MAX_CONFIG_SIZE: u32 = 256;

/// Serves front-ends with `device`, one after the other, until `stop` is readable or no further
/// front-end can come. Every vring is stopped, with its requests finished, on return.
///
/// # Errors
///
/// [`TransportError`] when the transport is of no more use.
pub fn serve(
    transport: &mut dyn Transport,
    device: Arc<dyn Device>,
    stop: BorrowedFd<'_>,
) -> Result<(), TransportError> {
    let offered = transport.protocol_features(PROTOCOL_FEATURES.bits());
    let mut session = Session::new(device.clone(), offered);
    loop {
        match transport.next(stop)? {
            Event::Request(request) => {
                let Err(reason) = answer(transport, &mut session, request)? else {
                    continue;
                };
                tracing::warn!("dropping the front-end: {reason}");
                transport.disconnect()?;
            }
            Event::Disconnected(None) => tracing::info!("the front-end left"),
            Event::Disconnected(Some(reason)) => tracing::warn!("dropped the front-end: {reason}"),
            Event::Closed | Event::Woken => return Ok(()),
        }
        session = Session::new(device.clone(), offered);
    }
}

/// Lets the session handle a request and sends what is to be answered. The inner error is a
/// mistake of the front-end that it cannot be told about, so that it has to be dropped.
fn answer(
    transport: &mut dyn Transport,
    session: &mut Session,
    request: Request,
) -> Result<Result<(), RequestError>, TransportError> {
    let message = request.message;
    tracing::debug!("{}", message.name());
    let result = request.resource.map_err(RequestError::Resource);
    let result = result.and_then(|resource| session.handle(&message, resource));
    let reply = match result {
        Ok(Answer::Reply(payload)) => Some(message.reply(&payload)),
        Ok(Answer::Done) => session.wants_ack(&message).then(|| message.ack(true)),
        Err(error) if session.wants_ack(&message) => {
            tracing::warn!("refused {}: {error}", message.name());
            Some(message.ack(false))
        }
        Err(error) => return Ok(Err(error.of(&message))),
    };
    if let Some(reply) = reply {
        transport.reply(&reply)?;
    }
    Ok(Ok(()))
}

/// What a request is answered with when it worked.
enum Answer {
    /// Nothing, unless the front-end wants to be told that it worked.
    Done,
    /// This payload.
    Reply(Vec<u8>),
}

impl Answer {
    fn number(value: u64) -> Self {
        Self::Reply(value.to_le_bytes().to_vec())
    }
}

/// The conversation with one front-end.
struct Session {
    device: Arc<dyn Device>,
    offered_protocol: u64,
    protocol: u64,
    features: u64,
    memory: MemoryTable,
    vrings: Vec<VringState>,
}

impl Session {
    fn new(device: Arc<dyn Device>, offered_protocol: u64) -> Self {
        let vrings = (0..device.queue_count()).map(VringState::new).collect();
        let memory = MemoryTable::default();
        Self {
            device,
            offered_protocol,
            protocol: 0,
            features: 0,
            memory,
            vrings,
        }
    }

    /// Whether this request is to be answered with an acknowledgement if with nothing else.
    fn wants_ack(&self, message: &Message) -> bool {
        message.needs_reply() && self.negotiated(ProtocolFeatures::REPLY_ACK)
    }

    fn negotiated(&self, feature: ProtocolFeatures) -> bool {
        self.protocol & feature.bits() != 0
    }

    fn offered_features(&self) -> u64 {
        self.device.features() | F_PROTOCOL_FEATURES
    }

    fn handle(&mut self, message: &Message, resource: Resource) -> Result<Answer, RequestError> {
        if message.is_reply() {
            return Err(RequestError::UnexpectedReply);
        }
        let code = message
            .code()
            .ok_or(RequestError::Unknown(message.request))?;
        self.check_negotiated(code)?;
        match code {
            FrontendReq::GET_FEATURES => return Ok(Answer::number(self.offered_features())),
            FrontendReq::GET_PROTOCOL_FEATURES => return Ok(Answer::number(self.offered_protocol)),
            FrontendReq::GET_QUEUE_NUM => return Ok(Answer::number(self.vrings.len() as u64)),
            FrontendReq::GET_MAX_MEM_SLOTS => return Ok(Answer::number(MAX_SLOTS as u64)),
            FrontendReq::GET_CONFIG => return self.get_config(message),
            FrontendReq::GET_VRING_BASE => return self.get_vring_base(message),

            // There is one owner by design. RESET_OWNER is to be ignored, as its meaning is lost.
            FrontendReq::SET_OWNER | FrontendReq::RESET_OWNER => {}
            FrontendReq::SET_FEATURES => self.set_features(message.as_u64()?)?,
            FrontendReq::SET_PROTOCOL_FEATURES => self.set_protocol_features(message.as_u64()?)?,
            FrontendReq::SET_CONFIG => self.set_config(message)?,
            FrontendReq::SET_MEM_TABLE => {
                let regions = memory_resource(resource)?;
                self.change_memory(|memory| memory.replace(regions))?;
            }
            FrontendReq::ADD_MEM_REG => {
                let regions = memory_resource(resource)?;
                self.change_memory(|memory| memory.add(regions))?;
            }
            FrontendReq::REM_MEM_REG => {
                let region = message.as_single_region()?;
                self.change_memory(|memory| memory.remove(&region))?;
            }
            FrontendReq::SET_VRING_NUM => self.set_vring_num(message)?,
            FrontendReq::SET_VRING_ADDR => self.set_vring_addr(message)?,
            FrontendReq::SET_VRING_BASE => self.set_vring_base(message)?,
            FrontendReq::SET_VRING_ENABLE => self.set_vring_enable(message)?,
            FrontendReq::SET_VRING_KICK => {
                let Resource::Kick(kick) = resource else {
                    return Err(RequestError::NoResource);
                };
                self.change_vring(message.as_vring_fd()?.queue, |vring| {
                    vring.kick = Some(kick)
                })?;
            }
            FrontendReq::SET_VRING_CALL => self.set_vring_call(message, resource)?,
            FrontendReq::SET_VRING_ERR => {
                let error = notifier_resource(resource)?;
                self.change_vring(message.as_vring_fd()?.queue, |vring| vring.error = error)?;
            }
            _ => return Err(RequestError::NotOffered),
        }
        Ok(Answer::Done)
    }

    /// Refuses requests that belong to a protocol feature that was not negotiated.
    fn check_negotiated(&self, code: FrontendReq) -> Result<(), RequestError> {
        let feature = match code {
            FrontendReq::GET_CONFIG | FrontendReq::SET_CONFIG => ProtocolFeatures::CONFIG,
            FrontendReq::GET_QUEUE_NUM => ProtocolFeatures::MQ,
            FrontendReq::GET_MAX_MEM_SLOTS
            | FrontendReq::ADD_MEM_REG
            | FrontendReq::REM_MEM_REG => ProtocolFeatures::CONFIGURE_MEM_SLOTS,
            _ => return Ok(()),
        };
        match self.negotiated(feature) {
            true => Ok(()),
            false => Err(RequestError::NotNegotiated(feature)),
        }
    }

    fn set_features(&mut self, features: u64) -> Result<(), RequestError> {
        let unknown = features & !self.offered_features();
        if unknown != 0 {
            return Err(RequestError::Features(unknown));
        }
        if features == self.features {
            return Ok(());
        }
        self.stop_all();
        self.features = features;
        self.start_all()
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<(), RequestError> {
        let unknown = features & !self.offered_protocol;
        if unknown != 0 {
            return Err(RequestError::ProtocolFeatures(unknown));
        }
        self.protocol = features;
        Ok(())
    }

    fn get_config(&self, message: &Message) -> Result<Answer, RequestError> {
        let (config, _) = decode_config(message)?;
        let mut payload = config.as_slice().to_vec();
        let mut data = vec![0; config.size as usize];
        self.device.read_config(config.offset as usize, &mut data);
        payload.extend(data);
        Ok(Answer::Reply(payload))
    }

    fn set_config(&self, message: &Message) -> Result<(), RequestError> {
        let (config, data) = decode_config(message)?;
        if data.len() != config.size as usize {
            let actual = message.payload.len();
            return Err(PayloadError {
                expected: "configuration of its stated size",
                actual,
            }
            .into());
        }
        Ok(self.device.write_config(config.offset as usize, data)?)
    }

    /// Stops every vring, changes the memory, and starts them again in the new memory.
    fn change_memory(
        &mut self,
        change: impl FnOnce(&mut MemoryTable) -> Result<(), RequestError>,
    ) -> Result<(), RequestError> {
        self.stop_all();
        let changed = change(&mut self.memory);
        changed.and(self.start_all())
    }

    fn set_vring_num(&mut self, message: &Message) -> Result<(), RequestError> {
        let state: VhostUserVringState = message.as_struct()?;
        let (size, max) = (state.num, self.device.max_queue_size());
        let possible = size.is_power_of_two() || size > 0 && self.is_packed();
        if !possible || size > u32::from(max) {
            return Err(RequestError::QueueSize { size, max });
        }
        self.change_vring(queue_index(state.index)?, |vring| vring.size = size as u16)
    }

    fn set_vring_base(&mut self, message: &Message) -> Result<(), RequestError> {
        let state: VhostUserVringState = message.as_struct()?;
        let base = match self.is_packed() {
            // The upper half is the position of the next used buffer, which is the same one: a vring
            // has nothing in flight while it is stopped. Not all front-ends fill it in.
            true => state.num as u16,
            false => u16::try_from(state.num).map_err(|_| RequestError::Base(state.num))?,
        };
        self.change_vring(queue_index(state.index)?, |vring| {
            vring.next_avail = Some(base);
        })
    }

    fn set_vring_addr(&mut self, message: &Message) -> Result<(), RequestError> {
        let addr: VhostUserVringAddr = message.as_struct()?;
        let layout = UserLayout {
            desc: addr.descriptor,
            avail: addr.available,
            used: addr.used,
        };
        layout.translate(&self.memory)?;
        self.change_vring(queue_index(addr.index)?, |vring| {
            vring.layout = Some(layout)
        })
    }

    fn set_vring_enable(&mut self, message: &Message) -> Result<(), RequestError> {
        let state: VhostUserVringState = message.as_struct()?;
        let enabled = match state.num {
            0 => false,
            1 => true,
            other => return Err(RequestError::Enable(other)),
        };
        self.change_vring(queue_index(state.index)?, |vring| vring.enabled = enabled)
    }

    fn set_vring_call(
        &mut self,
        message: &Message,
        resource: Resource,
    ) -> Result<(), RequestError> {
        let call = notifier_resource(resource)?;
        let queue = message.as_vring_fd()?.queue;
        self.change_vring(queue, |vring| vring.call = call.clone())?;
        // Buffers used before the front-end could be told are announced now.
        if let Some(call) = call.filter(|_| self.vrings[usize::from(queue)].is_running())
            && let Err(error) = call.notify()
        {
            tracing::debug!("queue {queue}: call: {error}");
        }
        Ok(())
    }

    fn get_vring_base(&mut self, message: &Message) -> Result<Answer, RequestError> {
        let mut state: VhostUserVringState = message.as_struct()?;
        let packed = self.is_packed();
        let vring = self.vring(queue_index(state.index)?)?;
        vring.stop();
        vring.kick = None;
        state.num = vring.base(packed);
        Ok(Answer::Reply(state.as_slice().to_vec()))
    }

    fn is_packed(&self) -> bool {
        self.features & PACKED != 0
    }

    fn vring(&mut self, queue: u16) -> Result<&mut VringState, RequestError> {
        self.vrings
            .get_mut(usize::from(queue))
            .ok_or(RequestError::Queue(queue.into()))
    }

    fn change_vring(
        &mut self,
        queue: u16,
        change: impl FnOnce(&mut VringState),
    ) -> Result<(), RequestError> {
        let vring = self.vring(queue)?;
        vring.stop();
        change(vring);
        self.start(usize::from(queue))
    }

    /// Starts a vring for which everything is there; one that lacks something waits for it.
    fn start(&mut self, queue: usize) -> Result<(), RequestError> {
        let always_enabled = self.features & F_PROTOCOL_FEATURES == 0;
        let vring = &mut self.vrings[queue];
        vring.start(
            self.device.as_ref(),
            &self.memory,
            self.features,
            always_enabled,
        )
    }

    /// Starts all vrings that can be; the answer is the first failure.
    fn start_all(&mut self) -> Result<(), RequestError> {
        let results: Vec<_> = (0..self.vrings.len())
            .map(|queue| self.start(queue))
            .collect();
        results.into_iter().collect()
    }

    fn stop_all(&mut self) {
        self.vrings.iter_mut().for_each(VringState::stop);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop_all();
    }
}

/// The header and the data of a GET_CONFIG or SET_CONFIG payload, checked against the limits.
fn decode_config(message: &Message) -> Result<(VhostUserConfig, &[u8]), RequestError> {
    let actual = message.payload.len();
    let error = PayloadError {
        expected: "access to the configuration space",
        actual,
    };
    let (header, data) = message
        .payload
        .split_at_checked(size_of::<VhostUserConfig>())
        .ok_or(error)?;
    let mut config = VhostUserConfig::default();
    config.as_mut_slice().copy_from_slice(header);
    let (offset, size) = (config.offset, config.size);
    match offset.checked_add(size) {
        Some(end) if end <= MAX_CONFIG_SIZE => Ok((config, data)),
        _ => Err(RequestError::ConfigRange { offset, size }),
    }
}

fn queue_index(index: u32) -> Result<u16, RequestError> {
    u16::try_from(index).map_err(|_| RequestError::Queue(index))
}

fn memory_resource(resource: Resource) -> Result<Vec<MemoryRegion>, RequestError> {
    match resource {
        Resource::Memory(regions) => Ok(regions),
        _ => Err(RequestError::NoResource),
    }
}

fn notifier_resource(
    resource: Resource,
) -> Result<Option<Arc<dyn virtio::Notifier>>, RequestError> {
    match resource {
        Resource::Notifier(notifier) => Ok(notifier),
        _ => Err(RequestError::NoResource),
    }
}

#[cfg(test)]
mod tests;
