//! Whole messages over a Unix stream socket, with file descriptors beside them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::wire::{HEADER_SIZE, Header, HeaderError, MAX_FDS};

/// A message as it came.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

/// A message on its way out.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    bytes: &'a [u8],
    fds: &'a [BorrowedFd<'a>],
}

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The peer closed its end between two messages.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer closed its end inside a message.
    #[error("the peer closed the connection in the middle of a message")]
    CutOff,
    /// What came is no message.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A message brought more file descriptors than any may.
    #[error("a message has more than {MAX_FDS} file descriptors")]
    TooManyFds,
    /// The operating system reports a failure.
    #[error("socket: {0}")]
    Io(#[from] io::Error),
}

impl From<Errno> for ChannelError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::CONNRESET | Errno::PIPE => Self::Closed,
            errno => Self::Io(errno.into()),
        }
    }
}

/// One end of the socket. Never blocks: its user waits for the file descriptor.
#[derive(Debug)]
pub(crate) struct Channel {
    stream: UnixStream,
    received: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Channel {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            received: Vec::new(),
            fds: Vec::new(),
        })
    }

    /// The next message, or `None` when it is not all here yet.
    pub(crate) fn recv(&mut self) -> Result<Option<Packet>, ChannelError> {
        loop {
            let (header, missing) = self.progress()?;
            match header {
                Some(header) if missing == 0 => return Ok(Some(self.take(header))),
                _ if self.receive(missing)? => {}
                _ => return Ok(None),
            }
        }
    }

    fn take(&mut self, header: Header) -> Packet {
        let payload = self.received.split_off(HEADER_SIZE);
        self.received.clear();
        Packet {
            header,
            payload,
            fds: std::mem::take(&mut self.fds),
        }
    }

    /// The header as soon as it is here, and how many bytes are missing as far as is known.
    fn progress(&self) -> Result<(Option<Header>, usize), ChannelError> {
        let Some(bytes) = self.received.first_chunk::<HEADER_SIZE>() else {
            return Ok((None, HEADER_SIZE - self.received.len()));
        };
        let (header, payload) = Header::decode(bytes)?;
        Ok((Some(header), HEADER_SIZE + payload - self.received.len()))
    }

    /// Receives at most `limit` bytes, so that no byte and no file descriptor of the next message
    /// comes along. False when there is nothing to receive now.
    fn receive(&mut self, limit: usize) -> Result<bool, ChannelError> {
        let start = self.received.len();
        self.received.resize(start + limit, 0);
        let result = self.receive_at(start);
        let count = *result.as_ref().unwrap_or(&0);
        self.received.truncate(start + count);
        match result {
            Ok(0) if start == 0 => Err(ChannelError::Closed),
            Ok(0) => Err(ChannelError::CutOff),
            Ok(_) => Ok(true),
            Err(ChannelError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn receive_at(&mut self, start: usize) -> Result<usize, ChannelError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut self.received[start..])];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let answer =
            rustix::io::retry_on_intr(|| recvmsg(&self.stream, &mut parts, &mut control, flags))?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        let truncated = answer.flags.contains(ReturnFlags::CTRUNC);
        if truncated || self.fds.len() > MAX_FDS {
            return Err(ChannelError::TooManyFds);
        }
        Ok(answer.bytes)
    }

    /// Sends as much of a message as the socket takes now; true when that was all of it. The file
    /// descriptors go with the first byte.
    pub(crate) fn send(&self, message: &mut Outgoing<'_>) -> Result<bool, ChannelError> {
        while !message.bytes.is_empty() {
            match self.send_some(message) {
                Ok(count) => message.advance(count),
                Err(Errno::AGAIN) => return Ok(false),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(true)
    }

    fn send_some(&self, message: &Outgoing<'_>) -> rustix::io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        // `Outgoing` holds no more than fit.
        if !message.fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(message.fds)) {
            return Err(Errno::INVAL);
        }
        let parts = [IoSlice::new(message.bytes)];
        rustix::io::retry_on_intr(|| {
            sendmsg(&self.stream, &parts, &mut control, SendFlags::NOSIGNAL)
        })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl<'a> Outgoing<'a> {
    pub(crate) fn new(bytes: &'a [u8], fds: &'a [BorrowedFd<'a>]) -> Result<Self, ChannelError> {
        match fds.len() {
            0..=MAX_FDS => Ok(Self { bytes, fds }),
            _ => Err(ChannelError::TooManyFds),
        }
    }

    /// Bytes that were not sent yet.
    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn advance(&mut self, count: usize) {
        self.bytes = &self.bytes[count..];
        self.fds = &[];
    }
}
