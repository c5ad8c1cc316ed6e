//! Messages over a Unix stream socket, with file descriptors beside them.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendFlags, recvmsg, send,
};

use super::message::{DecodeError, HEADER_SIZE, Header, MAX_REGIONS, Message};

/// One end of a vhost-user socket. Never blocks: its user waits for the file descriptor.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
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
    /// What came is no message.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// One message brought more file descriptors than any may.
    #[error("a message brought more than {MAX_REGIONS} file descriptors")]
    TooManyFds,
    /// The peer takes no more messages, though each is tiny.
    #[error("the peer does not read its messages")]
    Stuck,
    /// The operating system reports a failure.
    #[error("socket: {0}")]
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

    /// Sends a message with file descriptors, as a front-end does.
    ///
    /// # Errors
    ///
    /// [`ConnectionError`]; the connection is to be dropped then.
    pub fn send_with_fds(
        &mut self,
        message: &Message,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ConnectionError> {
        let bytes = message.encode();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_REGIONS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(rustix::net::SendAncillaryMessage::ScmRights(fds)) {
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
        let header = Header::decode(header)?;
        Ok(HEADER_SIZE + header.size as usize - self.received.len())
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

/// A listening Unix socket, whose path is removed when it is dropped.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: SocketPath,
}

/// Where a socket is, as something to be removed.
#[derive(Clone, Debug)]
pub struct SocketPath {
    path: PathBuf,
    inode: Option<u64>,
}

impl SocketPath {
    /// Removes the socket, unless another one has been put in its place.
    pub fn remove(&self) {
        if self.inode.is_some() && inode(&self.path) == self.inode {
            // It fails only when the socket has just gone.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Why a path cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A process listens there.
    #[error("{0}: another process listens on this socket; stop it or choose another path")]
    Busy(PathBuf),
    /// There is something that is no socket.
    #[error("{0}: exists and is not a socket; remove it or choose another path")]
    NotASocket(PathBuf),
    /// The folder is missing.
    #[error("{0}: its folder does not exist; make it first")]
    NoFolder(PathBuf),
    /// The operating system reports another failure.
    #[error("{path}: cannot listen: {source}")]
    Io {
        /// The path asked for.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
}

impl Listener {
    /// Listens at `path`. A socket that nobody listens on any more, left by a process that was
    /// killed, is replaced.
    ///
    /// # Errors
    ///
    /// See [`ListenError`].
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Io {
            path: path.to_owned(),
            source,
        };
        remove_stale(path)?;
        let listener = match UnixListener::bind(path) {
            Ok(listener) => listener,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ListenError::NoFolder(path.to_owned()));
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(ListenError::Busy(path.to_owned()));
            }
            Err(error) => return Err(failed(error)),
        };
        listener.set_nonblocking(true).map_err(failed)?;
        let path = SocketPath {
            path: path.to_owned(),
            inode: inode(path),
        };
        Ok(Self { listener, path })
    }

    /// Where the socket is.
    pub fn path(&self) -> &SocketPath {
        &self.path
    }

    /// The next peer that connected; `None` when there is none now.
    ///
    /// # Errors
    ///
    /// When the operating system refuses, for lack of file descriptors for instance.
    pub fn accept(&self) -> io::Result<Option<UnixStream>> {
        match self.listener.accept() {
            Ok((stream, _)) => Ok(Some(stream)),
            Err(error) if is_transient(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.path.remove();
    }
}

fn inode(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(path)
        .ok()
        .map(|metadata| metadata.ino())
}

fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted | ConnectionAborted)
}

fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|source| ListenError::Io {
                path: path.to_owned(),
                source,
            }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) => Err(ListenError::Busy(path.to_owned())),
        Err(source) => Err(ListenError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests;
