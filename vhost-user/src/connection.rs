//! Messages and descriptors over a Unix stream socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ipc::{Frame, Framed, StreamError};

use crate::message::{DecodeError, HEADER_SIZE, Head, Message};
use crate::payload::MAX_REGIONS;

/// One end of a vhost-user connection over a Unix stream socket. No method blocks. The caller polls
/// the descriptor.
#[derive(Debug)]
pub struct Connection(Framed);

/// The reason why a connection cannot be used any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The socket failed, or the peer closed the connection.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The peer sent bytes that are not a valid message.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl ConnectionError {
    /// Whether the error says that the peer closed the connection between two messages.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Stream(StreamError::Closed))
    }
}

impl Connection {
    /// Makes one end of a connection from a connected stream socket.
    ///
    /// # Errors
    ///
    /// When the socket cannot be made non-blocking.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        Framed::new(stream, MAX_REGIONS).map(Self)
    }

    /// Sets the time limit from the first byte of a message to its last. The default is 5 seconds.
    #[cfg(test)]
    pub(crate) fn with_message_limit(self, limit: Duration) -> Self {
        Self(self.0.with_message_limit(limit))
    }

    /// Receives the next message and its descriptors. `None` means that the message has not
    /// completely arrived yet.
    ///
    /// # Errors
    ///
    /// [`ConnectionError`]. After an error, the caller has to drop the connection.
    pub fn recv(&mut self) -> Result<Option<(Message, Vec<OwnedFd>)>, ConnectionError> {
        let Some(Frame { bytes, fds }) = self.0.receive(missing)? else {
            return Ok(None);
        };
        Ok(Some((Message::decode(&bytes)?, fds)))
    }

    /// The remaining time for the peer to complete the message that it has begun. `None` means that
    /// the peer has not begun a message.
    pub fn time_left(&self) -> Option<Duration> {
        self.0.time_left()
    }

    /// Sends a message with descriptors. Fails if the socket's send buffer has no room for the
    /// whole message. The buffer has room if the peer reads its messages.
    ///
    /// # Errors
    ///
    /// [`ConnectionError`]. After an error, the caller has to drop the connection.
    pub fn send(
        &mut self,
        message: &Message,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ConnectionError> {
        if fds.len() > MAX_REGIONS {
            return Err(StreamError::TooManyFds(MAX_REGIONS).into());
        }
        Ok(self.0.send_whole(&message.encode(), fds)?)
    }

    /// Ends the connection in both directions. Both ends still receive the bytes that were sent
    /// before.
    pub fn shut_down(&self) {
        self.0.shut_down();
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The number of bytes missing from a message. Until the header is complete, only the header's
/// missing bytes count.
fn missing(received: &[u8]) -> Result<usize, ConnectionError> {
    let Some(header) = received.first_chunk::<HEADER_SIZE>() else {
        return Ok(HEADER_SIZE - received.len());
    };
    let (_, size) = Head::decode(header)?;
    Ok(HEADER_SIZE + size - received.len())
}

#[cfg(test)]
mod tests;
