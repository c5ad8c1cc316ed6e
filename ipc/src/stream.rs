//! Sends and receives bytes and descriptors over a Unix stream socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::cmsg_space;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The maximum number of descriptors that one call can send (`SCM_MAX_FD` of the kernel).
const MAX_FDS: usize = 253;

/// The length in bytes of a control buffer for `MAX_FDS` descriptors.
const CONTROL_SIZE: usize = cmsg_space!(ScmRights(MAX_FDS));

/// One end of a Unix stream socket. No method blocks. The caller polls the descriptor.
#[derive(Debug)]
pub struct Stream(UnixStream);

/// The reason for which a connection can no longer be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer closed its end between two messages.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer closed its end in the middle of a message.
    #[error("the peer closed the connection in the middle of a message")]
    CutOff,
    /// The peer did not complete a message in time.
    #[error("the peer stopped in the middle of a message")]
    Stalled,
    /// The peer does not read its messages, so the socket has no room for another message.
    #[error("the peer does not read its messages")]
    Stuck,
    /// A message has more descriptors than allowed. The field is the allowed number.
    #[error("a message has more than {0} file descriptors")]
    TooManyFds(usize),
    /// The operating system reports a failure.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for StreamError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::CONNRESET | Errno::PIPE => Self::Closed,
            errno => Self::Io(errno.into()),
        }
    }
}

impl Stream {
    /// Makes an endpoint from a connected socket.
    ///
    /// # Errors
    ///
    /// When the socket cannot be made non-blocking.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// Receives bytes into `buffer`, and appends the descriptors that come with the bytes to `fds`.
    /// `fds` may have at most `max_fds` descriptors in all. Returns the number of bytes, which is 0
    /// if the peer closed its end. Returns `None` if nothing has arrived.
    ///
    /// If `buffer` has room only for the missing bytes of a message, this call receives no byte and
    /// no descriptor of the next message.
    ///
    /// # Errors
    ///
    /// [`StreamError`]. After an error, the connection can no longer be used.
    pub fn receive(
        &self,
        buffer: &mut [u8],
        fds: &mut Vec<OwnedFd>,
        max_fds: usize,
    ) -> Result<Option<usize>, StreamError> {
        let room = max_fds.min(MAX_FDS).saturating_sub(fds.len());
        let mut space = [MaybeUninit::uninit(); CONTROL_SIZE];
        let mut control = RecvAncillaryBuffer::new(&mut space[..cmsg_space!(ScmRights(room))]);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let answer = match retry_on_intr(|| recvmsg(&self.0, &mut parts, &mut control, flags)) {
            Err(Errno::AGAIN) => return Ok(None),
            answer => answer?,
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        // Because its length is rounded up for alignment, the control buffer may have room for one
        // descriptor more than allowed.
        if answer.flags.contains(ReturnFlags::CTRUNC) || fds.len() > max_fds {
            return Err(StreamError::TooManyFds(max_fds));
        }
        Ok(Some(answer.bytes))
    }

    /// Sends as many of these bytes as the socket accepts now, and returns the number of sent
    /// bytes. The descriptors are sent with the first byte.
    ///
    /// # Errors
    ///
    /// [`StreamError`]. After an error, the connection can no longer be used.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, StreamError> {
        if fds.len() > MAX_FDS {
            return Err(StreamError::TooManyFds(MAX_FDS));
        }
        let mut space = [MaybeUninit::uninit(); CONTROL_SIZE];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(StreamError::TooManyFds(MAX_FDS));
        }
        let parts = [IoSlice::new(bytes)];
        let flags = SendFlags::NOSIGNAL;
        match retry_on_intr(|| sendmsg(&self.0, &parts, &mut control, flags)) {
            Err(Errno::AGAIN) => Ok(0),
            sent => Ok(sent?),
        }
    }

    /// Ends the connection in both directions. Both ends still receive the bytes that were already
    /// sent.
    pub fn shut_down(&self) {
        // An error is ignored, because it means that the connection has already ended.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::{FdFlags, fcntl_getfd};

    use super::*;

    fn pair() -> (Stream, Stream) {
        let (one, other) = UnixStream::pair().unwrap();
        (Stream::new(one).unwrap(), Stream::new(other).unwrap())
    }

    #[test]
    fn an_empty_socket_gives_nothing_and_a_closed_one_0_bytes() {
        let (ours, theirs) = pair();
        let mut fds = Vec::new();
        assert_eq!(ours.receive(&mut [0; 4], &mut fds, 1).unwrap(), None);
        theirs.shut_down();
        assert_eq!(ours.receive(&mut [0; 4], &mut fds, 1).unwrap(), Some(0));
    }

    #[test]
    fn received_descriptors_are_closed_on_exec() {
        let (ours, theirs) = pair();
        theirs.send(&[1], &[theirs.as_fd(), ours.as_fd()]).unwrap();
        let mut fds = Vec::new();
        assert_eq!(ours.receive(&mut [0; 4], &mut fds, 2).unwrap(), Some(1));
        assert_eq!(fds.len(), 2);
        for fd in fds {
            assert_eq!(fcntl_getfd(&fd).unwrap(), FdFlags::CLOEXEC);
        }
    }

    #[test]
    fn more_descriptors_than_allowed_are_an_error_however_they_come() {
        for (already, sent, max) in [(0, 1, 0), (0, 3, 1), (1, 1, 1), (0, 253, 252)] {
            let (ours, theirs) = pair();
            let mut fds: Vec<_> = (0..already)
                .map(|_| ours.0.try_clone().unwrap().into())
                .collect();
            theirs.send(&[1], &vec![theirs.as_fd(); sent]).unwrap();
            let result = ours.receive(&mut [0; 4], &mut fds, max);
            assert!(
                matches!(result, Err(StreamError::TooManyFds(_))),
                "{already} {sent} {max}"
            );
        }
    }

    #[test]
    fn more_descriptors_than_the_kernel_takes_are_not_sent() {
        let (ours, _theirs) = pair();
        let fds = [ours.as_fd(); MAX_FDS + 1];
        assert!(matches!(
            ours.send(&[1], &fds),
            Err(StreamError::TooManyFds(MAX_FDS))
        ));
    }

    #[test]
    fn a_peer_that_left_is_reported_as_such() {
        let (ours, theirs) = pair();
        drop(theirs);
        assert!(matches!(ours.send(&[1], &[]), Err(StreamError::Closed)));
    }
}
