//! The server, which emulates a PCI function for one client.

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

/// The number of bytes that are kept from the start of each request. A reply repeats at most this
/// number of bytes of its request.
const ECHO: usize = 32;

/// The time limit for receiving a request, counted from its first byte.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// A connection to one client. No method blocks. The caller waits until the file descriptor is
/// ready.
///
/// [`Connection::next`] returns a request. The caller has to answer the request before it takes the
/// next request. The documentation of the request names the `reply` method for the answer.
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

/// Why the caller has to drop a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The socket failed, the client left, or the client sent bytes that are not a vfio-user
    /// message.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The client broke the protocol. A command that broke the protocol was also refused.
    #[error("the client broke the protocol: {0}")]
    Protocol(&'static str),
}

impl ServerError {
    /// Whether the client left between two messages, which is not a mistake of the client.
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
    /// When the socket cannot be made non-blocking.
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

    /// Whether a reply waits for the socket to become writable. Until the reply is sent, the
    /// connection reads no more requests. A client that does not read its replies therefore cannot
    /// fill the server's memory.
    pub fn wants_write(&self) -> bool {
        self.channel.wants_write()
    }

    /// The time that the client has left to complete a request that it began. `None` means that the
    /// client has not begun a request. If the request is still incomplete after this time,
    /// [`next`](Self::next) returns an error.
    pub fn time_left(&self) -> Option<Duration> {
        self.channel.time_left()
    }

    /// The next request. `None` means that no request has completely arrived yet, or that a reply
    /// still waits to be sent. This method also negotiates the version and refuses messages that
    /// are not valid requests. The caller does not see these messages.
    ///
    /// # Errors
    ///
    /// [`ServerError`]. The caller then has to drop the connection.
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

    /// Tells the client that a request without a result succeeded.
    ///
    /// # Errors
    ///
    /// [`ServerError`]. The caller then has to drop the connection.
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

    /// Answers [`Request::RegionRead`]. `data` has the requested number of bytes.
    ///
    /// # Errors
    ///
    /// [`ServerError`]. The caller then has to drop the connection.
    pub fn reply_data(&mut self, data: &[u8]) -> Result<()> {
        let echo = self.pending.as_ref().and_then(|p| p.echo.get(..16));
        let payload = Payload(echo.unwrap_or_default().to_vec()).bytes(data);
        self.answer(payload, &[])
    }

    /// Answers [`Request::DeviceInfo`].
    ///
    /// # Errors
    ///
    /// [`ServerError`]. The caller then has to drop the connection.
    pub fn reply_device(&mut self, info: &DeviceInfo) -> Result<()> {
        self.answer(codec::encode_device(info), &[])
    }

    /// Answers [`Request::RegionInfo`]. If the region has areas, the client also gets the region's
    /// file.
    ///
    /// # Errors
    ///
    /// [`ServerError`]. The caller then has to drop the connection.
    pub fn reply_region(&mut self, info: &RegionInfo) -> Result<()> {
        let (argsz, index) = self.argsz_and_index();
        let file = info.file.as_ref().filter(|_| !info.areas.is_empty());
        let fds: Vec<_> = file.iter().map(|file| file.as_fd()).collect();
        self.answer(codec::encode_region(index, info, argsz), &fds)
    }

    /// Answers [`Request::RegionIoFds`]. If the entries need more file descriptors than the client
    /// accepts, the client gets only the first entries.
    ///
    /// # Errors
    ///
    /// [`ServerError`]. The caller then has to drop the connection.
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
    /// [`ServerError`]. The caller then has to drop the connection.
    pub fn reply_irq(&mut self, info: &IrqInfo) -> Result<()> {
        let (_, index) = self.argsz_and_index();
        self.answer(codec::encode_irq(index, info), &[])
    }

    /// Tells the client that the request failed with the error `errno`.
    ///
    /// # Errors
    ///
    /// [`ServerError`]. The caller then has to drop the connection.
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
