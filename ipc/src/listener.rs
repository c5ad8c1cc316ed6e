//! Sockets that peers connect to.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::poll::Interest;
use crate::socket_path::{ListenError, SocketPath, listen};

/// The time that a listener rests after the operating system lacked descriptors or memory for a
/// peer.
const REST: Duration = Duration::from_secs(1);

/// A listening Unix socket. A socket that [`Listener::bind`] made is removed from the file system
/// when the listener is dropped.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: Option<SocketPath>,
    /// The time when the rest of the listener ends. Before that, the listener accepts no peers.
    rests_until: Cell<Option<Instant>>,
}

/// The result of [`Listener::accept`].
#[derive(Debug)]
pub enum Accepted {
    /// A peer.
    Peer(UnixStream),
    /// No peer waits to be accepted, or the listener rests.
    Nobody,
    /// A peer may be waiting, but the operating system lacks descriptors or memory, as this error
    /// says. The listener rests for a second, and the peer keeps waiting.
    Later(io::Error),
}

impl Listener {
    /// Listens at `path`. Replaces the socket of a process that was killed, on which nobody listens
    /// any more.
    ///
    /// # Errors
    ///
    /// See [`ListenError`].
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        let (listener, path) = listen(path)?;
        Ok(Self {
            listener,
            path: Some(path),
            rests_until: Cell::new(None),
        })
    }

    /// Takes a socket that listens already.
    ///
    /// # Errors
    ///
    /// When the socket cannot be made non-blocking.
    pub fn new(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            path: None,
            rests_until: Cell::new(None),
        })
    }

    /// The path of the socket, if this listener made the socket.
    pub fn path(&self) -> Option<&SocketPath> {
        self.path.as_ref()
    }

    /// The interest to [`poll`](crate::poll) for before the next [`accept`](Self::accept), and the
    /// maximum time to wait. While the listener rests, the interest is [`Interest::Nothing`]: the
    /// socket stays readable, so a caller that polled it would spin.
    pub fn interest(&self) -> (Interest<'_>, Option<Duration>) {
        match self.rest() {
            None => (Interest::readable(self), None),
            rest => (Interest::Nothing, rest),
        }
    }

    /// Accepts the next peer. Never blocks, and accepts nobody while the listener rests.
    ///
    /// # Errors
    ///
    /// When the socket cannot be used any more.
    pub fn accept(&self) -> io::Result<Accepted> {
        match self.rest() {
            Some(_) => Ok(Accepted::Nobody),
            None => self.judge(self.listener.accept().map(|(peer, _)| peer)),
        }
    }

    fn judge(&self, accepted: io::Result<UnixStream>) -> io::Result<Accepted> {
        let error = match accepted {
            Ok(peer) => return Ok(Accepted::Peer(peer)),
            Err(error) => error,
        };
        match Errno::from_io_error(&error) {
            Some(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(Accepted::Nobody),
            Some(Errno::NFILE | Errno::MFILE | Errno::NOMEM | Errno::NOBUFS) => {
                self.rests_until.set(Some(Instant::now() + REST));
                Ok(Accepted::Later(error))
            }
            _ => Err(error),
        }
    }

    /// The time that the listener still rests; `None` if it does not rest.
    pub fn rest(&self) -> Option<Duration> {
        let left = self
            .rests_until
            .get()?
            .checked_duration_since(Instant::now());
        left.filter(|left| !left.is_zero())
    }
}

impl AsFd for Listener {
    /// The descriptor is readable when a peer waits, or when the socket cannot be used any more.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            path.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_accepted_and_the_path_goes_with_the_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = Listener::bind(&path).unwrap();
        assert!(matches!(listener.accept().unwrap(), Accepted::Nobody));
        let _peer = UnixStream::connect(&path).unwrap();
        assert!(matches!(listener.accept().unwrap(), Accepted::Peer(_)));
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_lack_that_passes_lets_the_listener_rest_and_another_failure_is_final() {
        let folder = tempfile::tempdir().unwrap();
        let listener = Listener::bind(&folder.path().join("socket")).unwrap();
        assert!(listener.judge(Err(Errno::INVAL.into())).is_err());
        for errno in [Errno::NFILE, Errno::MFILE, Errno::NOMEM, Errno::NOBUFS] {
            listener.rests_until.set(None);
            assert!(matches!(listener.interest(), (Interest::Readable(_), None)));
            let judged = listener.judge(Err(errno.into())).unwrap();
            assert!(matches!(judged, Accepted::Later(_)), "{errno}");
            let (interest, rest) = listener.interest();
            assert!(matches!(interest, Interest::Nothing));
            assert!(rest.unwrap() <= REST);
        }
    }
}
