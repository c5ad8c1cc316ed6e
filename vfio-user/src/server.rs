//! The server: emulates a PCI function for one client.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ipc::StreamError;
use rustix::io::Errno;

use crate::channel::{Channel, ChannelError, Packet};
use crate::codec;
use crate::types::{DeviceInfo, IoEventFd, IrqInfo, RegionInfo};
use crate::version::{MAJOR, Version};
use crate::wire::{Command, Fields, Header, Kind, Payload};

mod request;

use request::Refusal;
pub use request::{DmaMap, DmaUnmap, IrqAction, IrqData, RegionWrite, Request, SetIrqs};

/// How many bytes of a request are kept for its reply. No reply repeats more of them.
const ECHO: usize = 32;

/// How long a client may take from the first byte of a request to its last.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// A connection to one client. Never blocks: its user waits for the file descriptor.
///
/// [`Connection::next`] gives a request. The caller answers it with the `reply` method that the
/// request names, before it takes the next one.
#[derive(Debug)]
pub struct Connection {
    channel: Channel,
    client: Option<Version>,
    pending: Option<Pending>,
}

/// The request that waits for its reply.
#[derive(Debug)]
struct Pending {
    header: Header,
    echo: Vec<u8>,
}

/// Why a connection is to be dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The socket failed, the client left, or it sent something that is not a message.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The client broke the protocol, and its command was refused.
    #[error("it broke the protocol: {0}")]
    Protocol(&'static str),
}

impl ServerError {
    /// Whether the client left between two messages, as it may.
    pub fn is_closed(&self) -> bool {
        matches!(
            self,
            Self::Channel(ChannelError::Stream(StreamError::Closed))
        )
    }
}

type Result<T> = std::result::Result<T, ServerError>;

impl Connection {
    /// Takes a connected stream socket.
    ///
    /// # Errors
    ///
    /// When it cannot be made non-blocking.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        Self::with_limit(stream, REQUEST_LIMIT)
    }

    fn with_limit(stream: UnixStream, limit: Duration) -> io::Result<Self> {
        Ok(Self {
            channel: Channel::new(stream, limit)?,
            client: None,
            pending: None,
        })
    }

    /// Whether a reply waits for the socket to become writable. Until it is sent there are no more
    /// requests, so that a client which does not read cannot fill memory.
    pub fn wants_write(&self) -> bool {
        self.channel.wants_write()
    }

    /// How long the client may still take to end the request that it began; `None`: it began none.
    /// When this has passed, [`next`](Self::next) drops a client that did not.
    pub fn time_left(&self) -> Option<Duration> {
        self.channel.time_left()
    }

    /// The next request, or `None` when there is none now. Negotiates the version, and refuses
    /// messages that are not valid requests, without the caller.
    ///
    /// # Errors
    ///
    /// [`ServerError`]; the connection is to be dropped then.
    #[expect(
        clippy::should_implement_trait,
        reason = "an error ends the connection"
    )]
    pub fn next(&mut self) -> Result<Option<Request>> {
        if self.pending.is_some() {
            self.reply_error(Errno::IO)?;
        }
        loop {
            if !self.channel.flush()? {
                return Ok(None);
            }
            let Some(packet) = self.channel.recv()? else {
                return Ok(None);
            };
            if let Some(request) = self.take(packet)? {
                return Ok(Some(request));
            }
        }
    }

    /// Turns a message into a request, or answers the message.
    fn take(&mut self, packet: Packet) -> Result<Option<Request>> {
        if let Kind::Reply { .. } = packet.header.kind {
            return Err(ServerError::Protocol("it replies to no command"));
        }
        let payload = packet.payload();
        let echo = payload[..payload.len().min(ECHO)].to_vec();
        self.pending = Some(Pending {
            header: packet.header,
            echo,
        });
        let command = Command::from_number(packet.header.command);
        match (self.client, command) {
            (None, Some(Command::Version)) => self.negotiate(packet.payload()).map(|()| None),
            (None, _) => self.break_off("its first command is not the version"),
            (Some(_), Some(command)) => match Request::decode(command, packet) {
                Ok(request) => Ok(Some(request)),
                Err(Refusal::Unacceptable(errno)) => self.reply_error(errno).map(|()| None),
                Err(Refusal::Malformed) => self.break_off("its command is malformed"),
            },
            (Some(_), None) => self.reply_error(Errno::OPNOTSUPP).map(|()| None),
        }
    }

    fn negotiate(&mut self, payload: &[u8]) -> Result<()> {
        let Some(client) = Version::decode(payload) else {
            return self.break_off("its version is malformed");
        };
        if client.major != MAJOR {
            return self.break_off("it speaks another version");
        }
        self.client = Some(client);
        self.answer(Version::answer(&client).encode(), &[])
    }

    fn break_off<T>(&mut self, why: &'static str) -> Result<T> {
        self.reply_error(Errno::INVAL)?;
        Err(ServerError::Protocol(why))
    }

    /// Answers a request that has no result. It succeeded.
    ///
    /// # Errors
    ///
    /// [`ServerError`]; the connection is to be dropped then.
    pub fn reply_done(&mut self) -> Result<()> {
        let Some(pending) = &self.pending else {
            return Ok(());
        };
        let repeated = match Command::from_number(pending.header.command) {
            Some(Command::RegionWrite) => 16,
            Some(Command::DmaUnmap) => 24,
            Some(Command::RegionWriteMulti) => 8,
            _ => 0,
        };
        let echo = pending.echo.get(..repeated).unwrap_or_default();
        self.answer(Payload(echo.to_vec()), &[])
    }

    /// Answers [`Request::RegionRead`] with as many bytes as were asked for.
    ///
    /// # Errors
    ///
    /// [`ServerError`]; the connection is to be dropped then.
    pub fn reply_data(&mut self, data: &[u8]) -> Result<()> {
        let echo = self.pending.as_ref().and_then(|p| p.echo.get(..16));
        let payload = Payload(echo.unwrap_or_default().to_vec()).bytes(data);
        self.answer(payload, &[])
    }

    /// Answers [`Request::DeviceInfo`].
    ///
    /// # Errors
    ///
    /// [`ServerError`]; the connection is to be dropped then.
    pub fn reply_device(&mut self, info: &DeviceInfo) -> Result<()> {
        self.answer(codec::encode_device(info), &[])
    }

    /// Answers [`Request::RegionInfo`]. If there are areas, the client gets the file, too.
    ///
    /// # Errors
    ///
    /// [`ServerError`]; the connection is to be dropped then.
    pub fn reply_region(&mut self, info: &RegionInfo) -> Result<()> {
        let (argsz, index) = self.argsz_and_index();
        let file = info.file.as_ref().filter(|_| !info.areas.is_empty());
        let fds: Vec<_> = file.iter().map(|file| file.as_fd()).collect();
        self.answer(codec::encode_region(index, info, argsz), &fds)
    }

    /// Answers [`Request::RegionIoFds`]. A client that takes fewer file descriptors than there are
    /// gets the first entries only.
    ///
    /// # Errors
    ///
    /// [`ServerError`]; the connection is to be dropped then.
    pub fn reply_io_fds(&mut self, entries: &[IoEventFd]) -> Result<()> {
        let (argsz, index) = self.argsz_and_index();
        let max_fds = self.client.map_or(1, |client| client.max_fds);
        let (payload, fds) = codec::encode_io_fds(index, entries, argsz, max_fds);
        self.answer(payload, &fds)
    }

    /// Answers [`Request::IrqInfo`].
    ///
    /// # Errors
    ///
    /// [`ServerError`]; the connection is to be dropped then.
    pub fn reply_irq(&mut self, info: &IrqInfo) -> Result<()> {
        let (_, index) = self.argsz_and_index();
        self.answer(codec::encode_irq(index, info), &[])
    }

    /// Answers that the request failed.
    ///
    /// # Errors
    ///
    /// [`ServerError`]; the connection is to be dropped then.
    pub fn reply_error(&mut self, errno: Errno) -> Result<()> {
        let errno = Some(errno.raw_os_error() as u32);
        self.send(Kind::Reply { errno }, Payload::default(), &[])
    }

    fn argsz_and_index(&self) -> (u32, u32) {
        let echo = self.pending.as_ref().map_or(&[][..], |p| &p.echo);
        let mut fields = Fields(echo);
        let argsz = fields.u32().unwrap_or(0);
        let index = fields.skip(4).and_then(|()| fields.u32()).unwrap_or(0);
        (argsz, index)
    }

    fn answer(&mut self, payload: Payload, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.send(Kind::Reply { errno: None }, payload, fds)
    }

    fn send(&mut self, kind: Kind, payload: Payload, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let Some(pending) = self.pending.take() else {
            return Ok(());
        };
        if pending.header.kind == (Kind::Command { no_reply: true }) {
            return Ok(());
        }
        let header = Header {
            kind,
            ..pending.header
        };
        Ok(self.channel.send(&header, &payload.0, fds)?)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

#[cfg(test)]
mod tests;
