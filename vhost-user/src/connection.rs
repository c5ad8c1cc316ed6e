//! Messages over a Unix stream socket, with file descriptors beside them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendFlags, recvmsg, send,
};

use crate::message::{DecodeError, HEADER_SIZE, Head, Message};
use crate::payload::MAX_REGIONS;

/// One end of a vhost-user socket. Never blocks: its user waits for the file descriptor.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// Why a connection cannot be used any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The peer closed its end between two messages.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer closed its end inside a message.
    #[error("the peer closed the connection in the middle of a message")]
    CutOff,
    /// The peer began a message and did not end it in time.
    #[error("the peer stopped in the middle of a message")]
    Stalled,
    /// What came is not a message.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// One message brought more file descriptors than any may.
    #[error("a message brought more than {MAX_REGIONS} file descriptors")]
    TooManyFds,
    /// The peer takes no more messages, though each is tiny.
    #[error("the peer does not read its messages")]
    Stuck,
    /// The operating system reports a failure.
    #[error("the socket failed")]
    Io(#[from] io::Error),
}

impl Connection {
    /// Takes a connected stream socket.
    ///
    /// # Errors
    ///
    /// When it cannot be made non-blocking.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            received: Vec::new(),
            fds: Vec::new(),
        })
    }

    /// The next message and its file descriptors, or `None` when it is not all here yet.
    ///
    /// # Errors
    ///
    /// [`ConnectionError`]; the connection is to be dropped then.
    pub fn recv(&mut self) -> Result<Option<(Message, Vec<OwnedFd>)>, ConnectionError> {
        loop {
            let missing = self.missing()?;
            if missing == 0 {
                let message = Message::decode(&self.received)?;
                self.received.clear();
                return Ok(Some((message, std::mem::take(&mut self.fds))));
            }
            if !self.receive(missing)? {
                return Ok(None);
            }
        }
    }

    /// Whether a message has begun to arrive but is not complete: its peer owes the rest.
    pub fn mid_message(&self) -> bool {
        !self.received.is_empty()
    }

    /// Sends a message. It is small enough to be taken whole by a peer that reads its socket.
    ///
    /// # Errors
    ///
    /// [`ConnectionError`]; the connection is to be dropped then.
    pub fn send(&mut self, message: &Message) -> Result<(), ConnectionError> {
        let bytes = message.encode();
        let flags = SendFlags::NOSIGNAL;
        match retry(|| send(&self.stream, &bytes, flags)) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Err(ConnectionError::Stuck),
            Err(errno) => Err(closed_or(errno)),
        }
    }

    /// Sends a message with file descriptors.
    ///
    /// # Errors
    ///
    /// [`ConnectionError`]; the connection is to be dropped then.
    pub fn send_with_fds(
        &mut self,
        message: &Message,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ConnectionError> {
        if fds.is_empty() {
            return self.send(message);
        }
        let bytes = message.encode();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_REGIONS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(rustix::net::SendAncillaryMessage::ScmRights(fds)) {
            return Err(ConnectionError::TooManyFds);
        }
        let parts = [IoSlice::new(&bytes)];
        match rustix::net::sendmsg(&self.stream, &parts, &mut control, SendFlags::NOSIGNAL) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Err(ConnectionError::Stuck),
            Err(errno) => Err(closed_or(errno)),
        }
    }

    /// Lets both ends see the end of the connection after what was sent already.
    pub fn shut_down(&self) {
        // It fails only when the peer did the same already.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// Bytes that the message at hand still lacks, as far as is known.
    fn missing(&self) -> Result<usize, DecodeError> {
        let Some(header) = self.received.first_chunk::<HEADER_SIZE>() else {
            return Ok(HEADER_SIZE - self.received.len());
        };
        let (_, size) = Head::decode(header)?;
        Ok(HEADER_SIZE + size - self.received.len())
    }

    /// Receives at most `limit` bytes, so that no byte and no file descriptor of the next message
    /// comes along. False when there is nothing to receive now.
    fn receive(&mut self, limit: usize) -> Result<bool, ConnectionError> {
        let start = self.received.len();
        self.received.resize(start + limit, 0);
        let result = self.receive_at(start);
        let count = *result.as_ref().unwrap_or(&0);
        self.received.truncate(start + count);
        match result {
            Ok(0) if start == 0 => Err(ConnectionError::Closed),
            Ok(0) => Err(ConnectionError::CutOff),
            Ok(_) => Ok(true),
            Err(ConnectionError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn receive_at(&mut self, start: usize) -> Result<usize, ConnectionError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_REGIONS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut self.received[start..])];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let answer =
            retry(|| recvmsg(&self.stream, &mut parts, &mut control, flags)).map_err(closed_or)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        let truncated = answer.flags.contains(ReturnFlags::CTRUNC);
        if truncated || self.fds.len() > MAX_REGIONS {
            return Err(ConnectionError::TooManyFds);
        }
        Ok(answer.bytes)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            result => return result,
        }
    }
}

fn closed_or(errno: rustix::io::Errno) -> ConnectionError {
    match errno {
        rustix::io::Errno::CONNRESET | rustix::io::Errno::PIPE => ConnectionError::Closed,
        errno => ConnectionError::Io(errno.into()),
    }
}

#[cfg(test)]
mod tests;
