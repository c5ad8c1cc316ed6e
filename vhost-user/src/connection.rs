//! Messages over a Unix stream socket, with descriptors beside them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ipc::{Frame, Framed, StreamError};

use crate::message::{DecodeError, HEADER_SIZE, Head, Message};
use crate::payload::MAX_REGIONS;

/// One end of a vhost-user socket. Never blocks: its user waits for the descriptor.
#[derive(Debug)]
pub struct Connection(Framed);

/// Why a connection cannot be used any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The socket failed, or the peer left.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The peer sent something that is not a message.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl ConnectionError {
    /// Whether the peer left between two messages.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Stream(StreamError::Closed))
    }
}

impl Connection {
    /// Takes a connected stream socket.
    ///
    /// # Errors
    ///
    /// When it cannot be made non-blocking.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        Framed::new(stream, MAX_REGIONS).map(Self)
    }

    /// Gives the peer this long, in place of 5 seconds, from the first byte of a message to its
    /// last.
    #[cfg(test)]
    pub(crate) fn with_message_limit(self, limit: Duration) -> Self {
        Self(self.0.with_message_limit(limit))
    }

    /// The next message and its descriptors, or `None` when it is not all here yet.
    ///
    /// # Errors
    ///
    /// [`ConnectionError`]; the connection is to be dropped then.
    pub fn recv(&mut self) -> Result<Option<(Message, Vec<OwnedFd>)>, ConnectionError> {
        let Some(Frame { bytes, fds }) = self.0.receive(missing)? else {
            return Ok(None);
        };
        Ok(Some((Message::decode(&bytes)?, fds)))
    }

    /// How long the peer may still take to end the message that it began; `None`: it began none.
    pub fn time_left(&self) -> Option<Duration> {
        self.0.time_left()
    }

    /// Sends a message with descriptors. It is small enough for the socket of a peer that reads.
    ///
    /// # Errors
    ///
    /// [`ConnectionError`]; the connection is to be dropped then.
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

    /// Lets both ends see the end of the connection after what was sent already.
    pub fn shut_down(&self) {
        self.0.shut_down();
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Bytes that a message lacks, as far as is known.
fn missing(received: &[u8]) -> Result<usize, ConnectionError> {
    let Some(header) = received.first_chunk::<HEADER_SIZE>() else {
        return Ok(HEADER_SIZE - received.len());
    };
    let (_, size) = Head::decode(header)?;
    Ok(HEADER_SIZE + size - received.len())
}

#[cfg(test)]
mod tests;
