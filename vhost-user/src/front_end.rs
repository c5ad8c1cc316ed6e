//! The front-end's side of a vhost-user connection.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use ipc::{Interest, poll};

use crate::connection::{Connection, ConnectionError};
use crate::features::{F_PROTOCOL_FEATURES, ProtocolFeatures};
use crate::message::{Message, Reply};
use crate::payload::{ConfigAccess, VringAddr, VringFd, VringState};
use crate::request::Request;
use crate::table::{Code, Kind};

/// A front-end that is connected to a back-end. The wait for each answer has a time limit.
#[derive(Debug)]
pub struct FrontEnd {
    connection: Connection,
    patience: Duration,
    protocol: ProtocolFeatures,
}

/// The reason why a request to a back-end failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrontEndError {
    /// The front-end cannot connect to the back-end's socket.
    #[error("cannot connect to the back-end")]
    Connect(#[source] io::Error),
    /// The connection failed.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// Waiting for the back-end failed.
    #[error("cannot wait for the back-end")]
    Wait(#[source] io::Error),
    /// The request with this name was not answered in time.
    #[error("the back-end does not answer {0}")]
    NoAnswer(String),
    /// The back-end refused the request with this name.
    #[error("the back-end refuses {0}")]
    Refused(String),
    /// The answer does not fit the request with this name.
    #[error("the back-end's answer does not fit {0}")]
    Answer(String),
}

impl FrontEnd {
    /// Connects to the back-end that listens at `path`. `patience` is the time limit for each
    /// answer.
    ///
    /// # Errors
    ///
    /// [`FrontEndError::Connect`].
    pub fn connect(path: &Path, patience: Duration) -> Result<Self, FrontEndError> {
        let stream = UnixStream::connect(path).map_err(FrontEndError::Connect)?;
        Self::new(stream, patience)
    }

    /// Makes a front-end from a connected socket. `patience` is the time limit for each answer.
    ///
    /// # Errors
    ///
    /// [`FrontEndError::Connect`] when the socket cannot be made non-blocking.
    pub fn new(stream: UnixStream, patience: Duration) -> Result<Self, FrontEndError> {
        let connection = Connection::new(stream).map_err(FrontEndError::Connect)?;
        Ok(Self {
            connection,
            patience,
            protocol: ProtocolFeatures::empty(),
        })
    }

    /// Sends a request and waits for its answer. A request without a reply of its own is answered
    /// by an acknowledgement if REPLY_ACK was agreed on, and is not answered otherwise. In both
    /// cases this method returns an empty reply.
    ///
    /// # Errors
    ///
    /// [`FrontEndError`].
    pub fn request(&mut self, request: Request<BorrowedFd<'_>>) -> Result<Reply, FrontEndError> {
        let (message, fds) = request.encode();
        if message.head.kind().is_some_and(Kind::has_reply) {
            return self.exchange(&message, &fds);
        }
        if !self.protocol.contains(ProtocolFeatures::REPLY_ACK) {
            self.connection.send(&message, &fds)?;
            return Ok(Reply::default());
        }
        let message = message.needing_reply();
        let reply = self.exchange(&message, &fds)?;
        match reply.as_number() {
            Some(0) => Ok(Reply::default()),
            Some(_) => Err(FrontEndError::Refused(message.head.name())),
            None => Err(FrontEndError::Answer(message.head.name())),
        }
    }

    /// Sends any message, and waits for the answer to the message.
    ///
    /// # Errors
    ///
    /// [`FrontEndError`].
    pub fn exchange(
        &mut self,
        message: &Message,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Reply, FrontEndError> {
        self.connection.send(message, fds)?;
        let deadline = Instant::now() + self.patience;
        loop {
            let Some((answer, fds)) = self.connection.recv()? else {
                self.wait(deadline, message)?;
                continue;
            };
            if !answer.head.is_reply() || answer.head.request != message.head.request {
                return Err(FrontEndError::Answer(message.head.name()));
            }
            let payload = answer.payload;
            return Ok(Reply { payload, fds });
        }
    }

    fn wait(&self, deadline: Instant, message: &Message) -> Result<(), FrontEndError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(FrontEndError::NoAnswer(message.head.name()));
        }
        let ready = poll([Interest::readable(&self.connection)], Some(left));
        ready.map(drop).map_err(FrontEndError::Wait)
    }

    /// Sends GET_FEATURES, which asks for the virtio features that the back-end offers.
    ///
    /// # Errors
    ///
    /// As for [`FrontEnd::request`].
    pub fn get_features(&mut self) -> Result<u64, FrontEndError> {
        self.number(Code::GET_FEATURES, Request::GetFeatures)
    }

    /// Sends SET_OWNER, and agrees on the virtio features in `features` that the back-end also
    /// offers. If [`F_PROTOCOL_FEATURES`] is agreed on, this method also agrees on the protocol
    /// features in `protocol` that the back-end offers. Returns the agreed virtio features.
    ///
    /// # Errors
    ///
    /// As for [`FrontEnd::request`].
    pub fn negotiate(
        &mut self,
        features: u64,
        protocol: ProtocolFeatures,
    ) -> Result<u64, FrontEndError> {
        self.request(Request::SetOwner)?;
        let features = self.get_features()? & features;
        self.request(Request::SetFeatures(features))?;
        if features & F_PROTOCOL_FEATURES != 0 {
            let code = Code::GET_PROTOCOL_FEATURES;
            let offered = self.number(code, Request::GetProtocolFeatures)?;
            let agreed = ProtocolFeatures::from_bits_retain(offered) & protocol;
            self.request(Request::SetProtocolFeatures(agreed))?;
            self.protocol = agreed;
        }
        Ok(features)
    }

    /// Sends GET_QUEUE_NUM, which asks for the number of queues.
    ///
    /// # Errors
    ///
    /// As for [`FrontEnd::request`].
    pub fn get_queue_num(&mut self) -> Result<u64, FrontEndError> {
        self.number(Code::GET_QUEUE_NUM, Request::GetQueueNum)
    }

    /// Sends GET_CONFIG, which reads `size` bytes at `offset` of the configuration space.
    ///
    /// # Errors
    ///
    /// As for [`FrontEnd::request`].
    pub fn get_config(&mut self, offset: u32, size: u32) -> Result<Vec<u8>, FrontEndError> {
        let reply = self.request(Request::GetConfig(ConfigAccess::read(offset, size)))?;
        if reply.payload.is_empty() {
            return Err(FrontEndError::Refused(name(Code::GET_CONFIG)));
        }
        match ConfigAccess::decode(&reply.payload) {
            Ok(access) if access.data.len() == size as usize => Ok(access.data),
            _ => Err(FrontEndError::Answer(name(Code::GET_CONFIG))),
        }
    }

    /// Sends GET_VRING_BASE, which stops vring `index`. Returns the position at which the vring
    /// stopped.
    ///
    /// # Errors
    ///
    /// As for [`FrontEnd::request`].
    pub fn get_vring_base(&mut self, index: u32) -> Result<u32, FrontEndError> {
        let reply = self.request(Request::GetVringBase(VringState { index, num: 0 }))?;
        match VringState::decode(&reply.payload) {
            Ok(state) if state.index == index => Ok(state.num),
            _ => Err(FrontEndError::Answer(name(Code::GET_VRING_BASE))),
        }
    }

    /// Sends all requests that set up and start a vring.
    ///
    /// # Errors
    ///
    /// As for [`FrontEnd::request`].
    pub fn start_vring(&mut self, vring: &VringSetup<'_>) -> Result<(), FrontEndError> {
        let index = vring.addr.index;
        let state = |num| VringState { index, num };
        let fd = |fd| VringFd {
            index: index as u8,
            fd,
        };
        self.request(Request::SetVringNum(state(vring.size)))?;
        self.request(Request::SetVringBase(state(vring.base)))?;
        self.request(Request::SetVringAddr(vring.addr))?;
        self.request(Request::SetVringCall(fd(vring.call)))?;
        self.request(Request::SetVringKick(fd(vring.kick)))?;
        if self.protocol != ProtocolFeatures::empty() {
            self.request(Request::SetVringEnable(state(1)))?;
        }
        Ok(())
    }

    fn number(
        &mut self,
        code: Code,
        request: Request<BorrowedFd<'_>>,
    ) -> Result<u64, FrontEndError> {
        let number = self.request(request)?.as_number();
        number.ok_or_else(|| FrontEndError::Answer(name(code)))
    }
}

/// The settings that a vring needs to start.
#[derive(Clone, Copy, Debug, Default)]
pub struct VringSetup<'a> {
    /// The number of descriptors in the vring.
    pub size: u32,
    /// The position at which the vring continues.
    pub base: u32,
    /// The index of the vring, and the addresses of its parts.
    pub addr: VringAddr,
    /// The eventfd of the vring's kicks. `None` means that the back-end polls.
    pub kick: Option<BorrowedFd<'a>>,
    /// The eventfd of the vring's calls. `None` means that the front-end polls.
    pub call: Option<BorrowedFd<'a>>,
}

fn name(code: Code) -> String {
    code.kind().name.to_owned()
}

impl AsFd for FrontEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

#[cfg(test)]
mod tests;
