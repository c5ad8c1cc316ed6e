//! Requests, which are decoded messages with their descriptors.

use std::fmt::Debug;
use std::iter;
use std::marker::PhantomData;

use crate::features::ProtocolFeatures;
use crate::memory::{MemoryError, MemoryRegion, MemoryTable};
use crate::message::Message;
use crate::payload::{
    ConfigAccess, Fields, MAX_REGIONS, PayloadError, VringAddr, VringFd, VringState,
};
use crate::resources::{Absent, AsTheyAre, Attach, AttachError, Descriptor, Resources, Signal};
use crate::table::{BackEndCode, Brings, Code, Kind};

/// A front-end's request. It contains the descriptors that come with the request, or the objects
/// that a transport makes from the descriptors.
///
/// A request that this crate does not decode is a [`Request::Raw`].
#[derive(Debug)]
pub enum Request<R: Resources> {
    /// GET_FEATURES, which asks for the virtio features that the back-end offers.
    GetFeatures,
    /// SET_FEATURES with the chosen virtio features as a bit mask.
    SetFeatures(u64),
    /// SET_OWNER, which begins the conversation.
    SetOwner,
    /// RESET_OWNER, which is deprecated.
    ResetOwner,
    /// SET_MEM_TABLE with 1 to [`MAX_REGIONS`] memory regions.
    SetMemTable(MemoryTable<R::Memory>),
    /// SET_VRING_NUM with the number of descriptors in the vring.
    SetVringNum(VringState),
    /// SET_VRING_ADDR with the addresses of the vring's parts.
    SetVringAddr(VringAddr),
    /// SET_VRING_BASE with the position at which the vring continues.
    SetVringBase(VringState),
    /// GET_VRING_BASE, which stops the vring. The number in this request has no meaning.
    GetVringBase(VringState),
    /// SET_VRING_KICK with the object that becomes readable when the front-end kicks the vring.
    SetVringKick(VringFd<R::Kick>),
    /// SET_VRING_CALL with the object that sends the vring's calls.
    SetVringCall(VringFd<R::Notifier>),
    /// SET_VRING_ERR with the object that reports errors of the vring.
    SetVringErr(VringFd<R::Notifier>),
    /// GET_PROTOCOL_FEATURES, which asks for the protocol features that the back-end offers.
    GetProtocolFeatures,
    /// SET_PROTOCOL_FEATURES with the chosen protocol features, which may include unknown bits.
    SetProtocolFeatures(ProtocolFeatures),
    /// GET_QUEUE_NUM, which asks for the number of queues.
    GetQueueNum,
    /// SET_VRING_ENABLE with a number. 1 enables the vring, and 0 disables the vring.
    SetVringEnable(VringState),
    /// SET_BACKEND_REQ_FD with the socket over which the back-end sends each [`BackEndRequest`].
    SetBackEndReqFd(R::File),
    /// GET_CONFIG, which reads the configuration space.
    GetConfig(ConfigAccess),
    /// SET_CONFIG, which writes to the configuration space. `data` has exactly `size` bytes.
    SetConfig(ConfigAccess),
    /// GET_MAX_MEM_SLOTS, which asks for the maximum number of memory regions.
    GetMaxMemSlots,
    /// ADD_MEM_REG with a table of the one region to add.
    AddMemReg(MemoryTable<R::Memory>),
    /// REM_MEM_REG with the region to remove.
    RemMemReg(MemoryRegion<()>),
    /// Any other request, whose payload is not decoded.
    Raw {
        /// The number of the request.
        number: u32,
        /// The payload of the request.
        payload: Vec<u8>,
        /// The descriptors that come with the request, or the objects that they stand for.
        files: Vec<R::File>,
    },
}

/// The reason why a message is not a valid request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The message is a reply instead of a request.
    #[error("a reply, but no request was sent")]
    Reply,
    /// The length or the contents of the payload do not fit the request.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The number of descriptors is wrong for the request.
    #[error("it brings {actual} descriptors, not {expected}")]
    Descriptors {
        /// The expected number of descriptors.
        expected: usize,
        /// The actual number of descriptors.
        actual: usize,
    },
    /// The transport passes no descriptors on, and the request does not work without them.
    #[error("the request needs descriptors, but this transport passes none on")]
    WithoutDescriptors,
    /// The memory regions of the request cannot be a front-end's memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A descriptor that came with the request cannot be used.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

impl<R: Resources> Request<R> {
    /// Decodes a message. `by` turns the message's descriptors into the objects that they stand
    /// for.
    ///
    /// # Errors
    ///
    /// [`RequestError`], which is a mistake of the front-end.
    pub fn attach<A>(
        message: &Message,
        fds: Vec<A::Descriptor>,
        by: &mut A,
    ) -> Result<Self, RequestError>
    where
        A: Attach<Into = R>,
    {
        if message.head.is_reply() {
            return Err(RequestError::Reply);
        }
        let payload = message.payload.as_slice();
        check_count(message.head.kind(), payload, fds.len())?;
        let Some(code) = Code::from_number(message.head.request) else {
            return Self::raw(message, fds, by);
        };
        Ok(match code {
            Code::GET_FEATURES => empty(payload, Self::GetFeatures)?,
            Code::SET_FEATURES => Self::SetFeatures(number(payload)?),
            Code::SET_OWNER => empty(payload, Self::SetOwner)?,
            Code::RESET_OWNER => empty(payload, Self::ResetOwner)?,
            Code::SET_MEM_TABLE => Self::SetMemTable(by.memory(decode_table(payload, fds)?)?),
            Code::SET_VRING_NUM => Self::SetVringNum(VringState::decode(payload)?),
            Code::SET_VRING_ADDR => Self::SetVringAddr(VringAddr::decode(payload)?),
            Code::SET_VRING_BASE => Self::SetVringBase(VringState::decode(payload)?),
            Code::GET_VRING_BASE => Self::GetVringBase(VringState::decode(payload)?),
            Code::SET_VRING_KICK => {
                let VringFd { index, fd } = VringFd::new(number(payload)?, fds);
                let fd = fd.map(|fd| by.kick(index, fd)).transpose()?;
                Self::SetVringKick(VringFd { index, fd })
            }
            Code::SET_VRING_CALL => Self::SetVringCall(notifier(payload, fds, Signal::Call, by)?),
            Code::SET_VRING_ERR => Self::SetVringErr(notifier(payload, fds, Signal::Error, by)?),
            Code::GET_PROTOCOL_FEATURES => empty(payload, Self::GetProtocolFeatures)?,
            Code::SET_PROTOCOL_FEATURES => {
                let features = ProtocolFeatures::from_bits_retain(number(payload)?);
                Self::SetProtocolFeatures(features)
            }
            Code::GET_QUEUE_NUM => empty(payload, Self::GetQueueNum)?,
            Code::SET_VRING_ENABLE => Self::SetVringEnable(VringState::decode(payload)?),
            Code::SET_BACKEND_REQ_FD => {
                empty(payload, ())?;
                Self::SetBackEndReqFd(by.file(only(fds)?)?)
            }
            Code::GET_CONFIG => Self::GetConfig(ConfigAccess::decode(payload)?),
            Code::SET_CONFIG => Self::SetConfig(decode_write(payload)?),
            Code::GET_MAX_MEM_SLOTS => empty(payload, Self::GetMaxMemSlots)?,
            Code::ADD_MEM_REG => {
                let region = decode_region(payload, only(fds)?)?;
                Self::AddMemReg(by.memory(MemoryTable::new(vec![region])?)?)
            }
            Code::REM_MEM_REG => Self::RemMemReg(decode_region(payload, ())?),
            _ => return Self::raw(message, fds, by),
        })
    }

    fn raw<A>(message: &Message, fds: Vec<A::Descriptor>, by: &mut A) -> Result<Self, RequestError>
    where
        A: Attach<Into = R>,
    {
        let files = fds.into_iter().map(|fd| by.file(fd));
        Ok(Self::Raw {
            number: message.head.request,
            payload: message.payload.clone(),
            files: files.collect::<Result<_, _>>()?,
        })
    }
}

impl<D: Descriptor> Request<D> {
    /// Decodes a message with its descriptors.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub fn decode(message: &Message, fds: Vec<D>) -> Result<Self, RequestError> {
        Self::attach(message, fds, &mut AsTheyAre(PhantomData))
    }

    /// The request as a message with descriptors.
    pub fn encode(self) -> (Message, Vec<D>) {
        let (number, payload, fds) = self.parts();
        (Message::request(number, &payload), fds)
    }

    fn parts(self) -> (u32, Vec<u8>, Vec<D>) {
        let bare = |code: Code, payload| (code.number(), payload, Vec::new());
        let number = |code, value: u64| bare(code, value.to_le_bytes().to_vec());
        match self {
            Self::GetFeatures => bare(Code::GET_FEATURES, Vec::new()),
            Self::SetFeatures(features) => number(Code::SET_FEATURES, features),
            Self::SetOwner => bare(Code::SET_OWNER, Vec::new()),
            Self::ResetOwner => bare(Code::RESET_OWNER, Vec::new()),
            Self::SetMemTable(table) => {
                let count = table.regions().len() as u64;
                with_regions(Code::SET_MEM_TABLE, count, table)
            }
            Self::SetVringNum(state) => bare(Code::SET_VRING_NUM, state.encode()),
            Self::SetVringAddr(addr) => bare(Code::SET_VRING_ADDR, addr.encode()),
            Self::SetVringBase(state) => bare(Code::SET_VRING_BASE, state.encode()),
            Self::GetVringBase(state) => bare(Code::GET_VRING_BASE, state.encode()),
            Self::SetVringKick(vring) => with_fd(Code::SET_VRING_KICK, vring),
            Self::SetVringCall(vring) => with_fd(Code::SET_VRING_CALL, vring),
            Self::SetVringErr(vring) => with_fd(Code::SET_VRING_ERR, vring),
            Self::GetProtocolFeatures => bare(Code::GET_PROTOCOL_FEATURES, Vec::new()),
            Self::SetProtocolFeatures(features) => {
                number(Code::SET_PROTOCOL_FEATURES, features.bits())
            }
            Self::GetQueueNum => bare(Code::GET_QUEUE_NUM, Vec::new()),
            Self::SetVringEnable(state) => bare(Code::SET_VRING_ENABLE, state.encode()),
            Self::SetBackEndReqFd(fd) => (Code::SET_BACKEND_REQ_FD.number(), Vec::new(), vec![fd]),
            Self::GetConfig(access) => bare(Code::GET_CONFIG, access.encode()),
            Self::SetConfig(access) => bare(Code::SET_CONFIG, access.encode()),
            Self::GetMaxMemSlots => bare(Code::GET_MAX_MEM_SLOTS, Vec::new()),
            Self::AddMemReg(table) => with_regions(Code::ADD_MEM_REG, 0, table),
            Self::RemMemReg(region) => {
                bare(Code::REM_MEM_REG, [vec![0; 8], region.encode()].concat())
            }
            Self::Raw {
                number,
                payload,
                files,
            } => (number, payload, files),
        }
    }
}

impl<R: Resources> Request<R> {
    /// Decodes a message whose descriptors the transport did not pass on.
    ///
    /// # Errors
    ///
    /// [`RequestError`], also for a request that does not work without its descriptors.
    pub fn attach_absent<A>(message: &Message, by: &mut A) -> Result<Self, RequestError>
    where
        A: Attach<Descriptor = Absent, Into = R>,
    {
        let kind = message.head.kind();
        if kind.is_some_and(|kind| !kind.without_descriptors) {
            return Err(RequestError::WithoutDescriptors);
        }
        let brings = kind.map_or(Brings::Nothing, |kind| kind.brings);
        let (count, _) = brings.count(&message.payload);
        Self::attach(message, vec![Absent; count.min(MAX_REGIONS)], by)
    }
}

/// Checks the number of descriptors. An unknown request must come without descriptors.
fn check_count(kind: Option<&Kind>, payload: &[u8], actual: usize) -> Result<(), RequestError> {
    let brings = kind.map_or(Brings::Nothing, |kind| kind.brings);
    let (expected, most) = brings.count(payload);
    if (expected..=most).contains(&actual) {
        return Ok(());
    }
    Err(RequestError::Descriptors { expected, actual })
}

fn empty<T>(payload: &[u8], request: T) -> Result<T, PayloadError> {
    Fields::new(payload).end().map(|()| request)
}

fn number(payload: &[u8]) -> Result<u64, PayloadError> {
    let mut fields = Fields::new(payload);
    let value = fields.u64()?;
    fields.end().map(|()| value)
}

fn only<D>(fds: Vec<D>) -> Result<D, RequestError> {
    let actual = fds.len();
    let expected = 1;
    let only = fds.into_iter().next();
    only.ok_or(RequestError::Descriptors { expected, actual })
}

fn decode_table<D>(payload: &[u8], fds: Vec<D>) -> Result<MemoryTable<D>, RequestError> {
    let mut fields = Fields::new(payload);
    let (count, _padding) = (fields.u32()?, fields.u32()?);
    if !(1..=MAX_REGIONS).contains(&(count as usize)) {
        return Err(PayloadError(payload.len()).into());
    }
    let regions = fds
        .into_iter()
        .map(|fd| MemoryRegion::decode(&mut fields, fd));
    let regions = regions.collect::<Result<_, _>>()?;
    fields.end()?;
    Ok(MemoryTable::new(regions)?)
}

fn decode_region<M>(payload: &[u8], memory: M) -> Result<MemoryRegion<M>, PayloadError> {
    let mut fields = Fields::new(payload);
    let _padding = fields.u64()?;
    let region = MemoryRegion::decode(&mut fields, memory)?;
    fields.end().map(|()| region)
}

fn decode_write(payload: &[u8]) -> Result<ConfigAccess, PayloadError> {
    let access = ConfigAccess::decode(payload)?;
    let has_all = access.data.len() == access.size as usize;
    has_all.then_some(access).ok_or(PayloadError(payload.len()))
}

fn notifier<A: Attach>(
    payload: &[u8],
    fds: Vec<A::Descriptor>,
    signal: Signal,
    by: &mut A,
) -> Result<VringFd<<A::Into as Resources>::Notifier>, RequestError> {
    let VringFd { index, fd } = VringFd::new(number(payload)?, fds);
    let fd = fd.map(|fd| by.notifier(index, signal, fd)).transpose()?;
    let fd = fd.flatten();
    Ok(VringFd { index, fd })
}

fn with_regions<D>(code: Code, head: u64, table: MemoryTable<D>) -> (u32, Vec<u8>, Vec<D>) {
    let regions = table.regions().iter().map(MemoryRegion::encode);
    let payload: Vec<_> = iter::once(head.to_le_bytes().to_vec())
        .chain(regions)
        .collect();
    let fds = table.into_regions().into_iter().map(|region| region.memory);
    (code.number(), payload.concat(), fds.collect())
}

fn with_fd<D>(code: Code, vring: VringFd<D>) -> (u32, Vec<u8>, Vec<D>) {
    let payload = vring.number().to_le_bytes().to_vec();
    (code.number(), payload, vring.fd.into_iter().collect())
}

/// A request that a back-end sends to the front-end over the socket from SET_BACKEND_REQ_FD.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackEndRequest {
    /// CONFIG_CHANGE_MSG, which says that the configuration space has changed.
    ConfigChange,
}

impl BackEndRequest {
    /// Decodes a message. Returns `None` for a request that this crate does not make.
    ///
    /// # Errors
    ///
    /// [`RequestError`] when the message is a reply, or the payload does not fit the request.
    pub fn decode(message: &Message) -> Result<Option<Self>, RequestError> {
        if message.head.is_reply() {
            return Err(RequestError::Reply);
        }
        match BackEndCode::from_number(message.head.request) {
            Some(BackEndCode::CONFIG_CHANGE_MSG) => {
                Ok(Some(empty(&message.payload, Self::ConfigChange)?))
            }
            _ => Ok(None),
        }
    }

    /// The request as a message.
    pub fn encode(&self) -> Message {
        let code = match self {
            Self::ConfigChange => BackEndCode::CONFIG_CHANGE_MSG,
        };
        Message::request(code.number(), &[])
    }
}

#[cfg(test)]
mod tests;
