//! Whole messages over a Unix stream socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::stream::{Stream, StreamError};

/// The default time limit for a peer, from the first byte of a message to its last.
const MESSAGE_LIMIT: Duration = Duration::from_secs(5);

/// Sends and receives whole messages over a Unix stream socket. The first bytes of a message have
/// to give the message's length. No method blocks. The caller polls the descriptor.
#[derive(Debug)]
pub struct Framed {
    stream: Stream,
    /// The maximum number of descriptors in one received message.
    max_fds: usize,
    /// The buffer for the incomplete message. The first `received` bytes of the buffer hold the
    /// bytes that have arrived. The remaining bytes are space for the next bytes.
    bytes: Vec<u8>,
    received: usize,
    fds: Vec<OwnedFd>,
    /// The time when the first bytes of the incomplete message arrived.
    began: Option<Instant>,
    limit: Duration,
    outbox: Outbox,
}

/// The part of an outgoing message that the socket has not accepted yet. At most one message has
/// such a part.
#[derive(Debug, Default)]
struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<OwnedFd>,
}

/// A whole message, as it was received.
#[derive(Debug)]
pub struct Frame {
    /// All bytes of the message.
    pub bytes: Vec<u8>,
    /// The descriptors that came with the message, in the order of their arrival.
    pub fds: Vec<OwnedFd>,
}

impl Framed {
    /// Makes an endpoint from a connected socket. A received message may have at most `max_fds`
    /// descriptors.
    ///
    /// # Errors
    ///
    /// When the socket cannot be made non-blocking.
    pub fn new(socket: UnixStream, max_fds: usize) -> io::Result<Self> {
        Ok(Self {
            stream: Stream::new(socket)?,
            max_fds,
            bytes: Vec::new(),
            received: 0,
            fds: Vec::new(),
            began: None,
            limit: MESSAGE_LIMIT,
            outbox: Outbox::default(),
        })
    }

    /// Sets the time limit from the first byte of a received message to its last. The default is 5
    /// seconds.
    pub fn with_message_limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Receives the next message. Returns `None` if the message has not arrived completely.
    ///
    /// `missing` is called with the bytes of the message that have arrived. It returns the number
    /// of bytes that are known to be missing, which is 0 if the message is complete. For instance,
    /// it first returns the number of missing bytes of the header, and later the number of missing
    /// bytes of the payload whose length is in the header. It must return an error if the payload
    /// is too long. The connection cannot be used after an error.
    ///
    /// # Errors
    ///
    /// A [`StreamError`], which is [`Stalled`](StreamError::Stalled) if a message is not complete
    /// within the time limit, or an error of `missing`. After an error, the caller has to drop the
    /// connection.
    pub fn receive<E: From<StreamError>>(
        &mut self,
        missing: impl Fn(&[u8]) -> Result<usize, E>,
    ) -> Result<Option<Frame>, E> {
        let before = self.received;
        loop {
            let missing = missing(&self.bytes[..self.received])?;
            if missing == 0 {
                return Ok(Some(self.take()));
            }
            if !self.receive_some(missing)? {
                break;
            }
        }
        // If this call received some bytes, it does not fail, even if the time limit has passed:
        // the caller may have been late, so that the peer had to wait for room in the socket.
        let progress = self.received > before;
        if !progress && self.time_left() == Some(Duration::ZERO) {
            return Err(StreamError::Stalled.into());
        }
        Ok(None)
    }

    /// The time that is left for the peer to complete its message. `None` means that no message has
    /// begun. When this time has passed, the caller has to call [`receive`](Self::receive) again.
    pub fn time_left(&self) -> Option<Duration> {
        Some(self.limit.saturating_sub(self.began?.elapsed()))
    }

    /// Receives at most `limit` bytes. Returns false if no bytes have arrived.
    fn receive_some(&mut self, limit: usize) -> Result<bool, StreamError> {
        let end = self.received + limit;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let room = &mut self.bytes[self.received..end];
        match self.stream.receive(room, &mut self.fds, self.max_fds)? {
            None => Ok(false),
            Some(0) if self.received == 0 => Err(StreamError::Closed),
            Some(0) => Err(StreamError::CutOff),
            Some(count) => {
                self.received += count;
                self.began.get_or_insert_with(Instant::now);
                Ok(true)
            }
        }
    }

    fn take(&mut self) -> Frame {
        self.bytes.truncate(self.received);
        self.received = 0;
        self.began = None;
        Frame {
            bytes: std::mem::take(&mut self.bytes),
            fds: std::mem::take(&mut self.fds),
        }
    }

    /// Sends a message with its descriptors. If the socket does not accept all bytes now, the
    /// remaining bytes are kept, and [`flush`](Self::flush) sends them later.
    ///
    /// # Errors
    ///
    /// A [`StreamError`], which is [`Stuck`](StreamError::Stuck) if a part of the previous message
    /// has not been sent yet. After an error, the caller has to drop the connection.
    pub fn send(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), StreamError> {
        if self.wants_write() {
            return Err(StreamError::Stuck);
        }
        let sent = self.stream.send(bytes, fds)?;
        let fds = if sent == 0 { fds } else { &[] };
        let fds = fds.iter().map(|fd| fd.try_clone_to_owned());
        self.outbox = Outbox {
            bytes: bytes[sent..].to_vec(),
            sent: 0,
            fds: fds.collect::<io::Result<_>>()?,
        };
        self.flush().map(drop)
    }

    /// Sends a short message as a whole. The socket has room for the message unless the peer has
    /// stopped reading its messages.
    ///
    /// # Errors
    ///
    /// A [`StreamError`], which is [`Stuck`](StreamError::Stuck) if the socket has no room for the
    /// message. After an error, the caller has to drop the connection.
    pub fn send_whole(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), StreamError> {
        self.send(bytes, fds)?;
        if self.wants_write() {
            return Err(StreamError::Stuck);
        }
        Ok(())
    }

    /// Sends the bytes that earlier calls have kept. Returns true when all of them are sent.
    ///
    /// # Errors
    ///
    /// [`StreamError`]. After an error, the caller has to drop the connection.
    pub fn flush(&mut self) -> Result<bool, StreamError> {
        while self.wants_write() {
            let fds: Vec<_> = self.outbox.fds.iter().map(AsFd::as_fd).collect();
            let sent = self
                .stream
                .send(&self.outbox.bytes[self.outbox.sent..], &fds)?;
            if sent == 0 {
                return Ok(false);
            }
            self.outbox.sent += sent;
            self.outbox.fds.clear();
        }
        self.outbox = Outbox::default();
        Ok(true)
    }

    /// Whether a part of a message is kept until the socket has room for it. A caller that sends
    /// one reply for each received message, and receives no message while this method returns true,
    /// never gets [`Stuck`](StreamError::Stuck) from [`send`](Self::send).
    pub fn wants_write(&self) -> bool {
        self.outbox.sent < self.outbox.bytes.len()
    }

    /// Ends the connection in both directions. Both ends still receive the bytes that were already
    /// sent.
    pub fn shut_down(&self) {
        self.stream.shut_down();
    }
}

impl AsFd for Framed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests;
