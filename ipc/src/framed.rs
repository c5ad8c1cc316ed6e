//! Whole messages over a stream.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::stream::{Stream, StreamError};

/// How long a peer may take from the first byte of a message to its last, where nothing else is
/// asked for.
const MESSAGE_LIMIT: Duration = Duration::from_secs(5);

/// Messages over a Unix stream socket, for a protocol that tells the length of a message from its
/// first bytes. Never blocks: its user waits for the descriptor.
#[derive(Debug)]
pub struct Framed {
    stream: Stream,
    /// The most descriptors that one message may bring.
    max_fds: usize,
    /// The message that arrives: `received` bytes of it, and room for what it is known to lack.
    bytes: Vec<u8>,
    received: usize,
    fds: Vec<OwnedFd>,
    /// When the first bytes of the message that arrives came.
    began: Option<Instant>,
    limit: Duration,
    outbox: Outbox,
}

/// The part of a message that the socket did not take yet. There is at most one.
#[derive(Debug, Default)]
struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<OwnedFd>,
}

/// A whole message, as it came.
#[derive(Debug)]
pub struct Frame {
    /// All bytes of the message.
    pub bytes: Vec<u8>,
    /// The descriptors that came with any of them, in this order.
    pub fds: Vec<OwnedFd>,
}

impl Framed {
    /// Takes a connected socket, on which one message may bring `max_fds` descriptors.
    ///
    /// # Errors
    ///
    /// When it cannot be made non-blocking.
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

    /// Gives the peer `limit`, in place of 5 seconds, from the first byte of a message to its last.
    pub fn with_message_limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// The next message, or `None` when it is not all here yet.
    ///
    /// `missing` is given the bytes of the message that are here. It says how many more are known
    /// to be missing, 0 when the message is whole. It may first ask for a header, then for what the
    /// header announces. Its errors end the connection, so a header that announces too much has to
    /// be one.
    ///
    /// # Errors
    ///
    /// [`StreamError`], [`Stalled`](StreamError::Stalled) when the end of a message is late, or an
    /// error of `missing`; the connection is to be dropped then.
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
        // When this is called late, the peer may have waited for room in the socket: bytes that
        // came only now show that it goes on.
        let progress = self.received > before;
        if !progress && self.time_left() == Some(Duration::ZERO) {
            return Err(StreamError::Stalled.into());
        }
        Ok(None)
    }

    /// How long the peer may still take to end the message that it began; `None`: it began none.
    /// When this has passed, [`receive`](Self::receive) is to be called again.
    pub fn time_left(&self) -> Option<Duration> {
        Some(self.limit.saturating_sub(self.began?.elapsed()))
    }

    /// Receives at most `limit` bytes. False when there is nothing to receive now.
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

    /// Sends a message with its descriptors. What the socket does not take now is kept, and
    /// [`flush`](Self::flush) sends it.
    ///
    /// # Errors
    ///
    /// [`StreamError`], [`Stuck`](StreamError::Stuck) when a message before this one is still kept;
    /// the connection is to be dropped then.
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

    /// Sends a message that is so short that a peer which reads at all has room for it.
    ///
    /// # Errors
    ///
    /// [`StreamError`], [`Stuck`](StreamError::Stuck) when there is no room; the connection is to
    /// be dropped then.
    pub fn send_whole(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), StreamError> {
        self.send(bytes, fds)?;
        if self.wants_write() {
            return Err(StreamError::Stuck);
        }
        Ok(())
    }

    /// Sends what was kept; true when nothing is left.
    ///
    /// # Errors
    ///
    /// [`StreamError`]; the connection is to be dropped then.
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
    /// only in answer to messages, and receives none meanwhile, keeps no more than one.
    pub fn wants_write(&self) -> bool {
        self.outbox.sent < self.outbox.bytes.len()
    }

    /// Lets both ends see the end of the connection, after what was sent already.
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
