//! vfio-user messages over a Unix stream socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ipc::{Frame, Framed, StreamError};

use crate::wire::{HEADER_SIZE, Header, HeaderError, MAX_FDS};

/// A received message.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) header: Header,
    /// The whole message, header included.
    bytes: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

impl Packet {
    /// The bytes after the header.
    pub(crate) fn payload(&self) -> &[u8] {
        self.bytes.get(HEADER_SIZE..).unwrap_or_default()
    }
}

/// Why a connection cannot be used any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The socket failed, or the peer left.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The peer sent bytes that are not a vfio-user message.
    #[error(transparent)]
    Header(#[from] HeaderError),
}

/// One end of a connection. No method blocks. The caller waits until the file descriptor is ready.
#[derive(Debug)]
pub(crate) struct Channel(Framed);

impl Channel {
    /// Takes a connected socket. The peer has to complete each message within `limit`, counted from
    /// the first byte of the message.
    pub(crate) fn new(socket: UnixStream, limit: Duration) -> io::Result<Self> {
        let framed = Framed::new(socket, MAX_FDS)?;
        Ok(Self(framed.with_message_limit(limit)))
    }

    /// The next message. `None` means that the message has not completely arrived yet.
    pub(crate) fn recv(&mut self) -> Result<Option<Packet>, ChannelError> {
        let Some(Frame { bytes, fds }) = self.0.receive(missing)? else {
            return Ok(None);
        };
        let header = bytes.first_chunk();
        let header = header.ok_or(HeaderError::Size(bytes.len() as u32))?;
        let (header, _) = Header::decode(header)?;
        Ok(Some(Packet { header, bytes, fds }))
    }

    /// The time that the peer has left to complete a message that it began. `None` means that the
    /// peer has not begun a message.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        self.0.time_left()
    }

    /// Sends a message. If the socket takes only a part of the message now, [`flush`](Self::flush)
    /// sends the rest later.
    pub(crate) fn send(
        &mut self,
        header: &Header,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        if fds.len() > MAX_FDS {
            return Err(StreamError::TooManyFds(MAX_FDS).into());
        }
        let bytes = [&header.encode(payload.len()), payload].concat();
        Ok(self.0.send(&bytes, fds)?)
    }

    /// Sends the rest of the previous message. Returns true when the whole message is sent.
    pub(crate) fn flush(&mut self) -> Result<bool, ChannelError> {
        Ok(self.0.flush()?)
    }

    /// Whether a message waits for the socket to become writable.
    pub(crate) fn wants_write(&self) -> bool {
        self.0.wants_write()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The number of bytes missing from a message. Until the header is complete, only the header's
/// missing bytes count.
fn missing(received: &[u8]) -> Result<usize, ChannelError> {
    let Some(header) = received.first_chunk() else {
        return Ok(HEADER_SIZE - received.len());
    };
    let (_, payload) = Header::decode(header)?;
    Ok(HEADER_SIZE + payload - received.len())
}
