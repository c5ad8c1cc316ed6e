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

/// How long a listener rests after the operating system could not give it a peer.
const REST: Duration = Duration::from_secs(1);

/// A listening Unix socket. Its path, if it has one, is removed when it is dropped.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: Option<SocketPath>,
    /// Until when it makes no sense to accept.
    rests_until: Cell<Option<Instant>>,
}

/// What came of [`Listener::accept`].
#[derive(Debug)]
pub enum Accepted {
    /// A peer.
    Peer(UnixStream),
    /// Nobody waits to be accepted.
    Nobody,
    /// A peer may wait, but the operating system lacks descriptors or memory, for this reason. The
    /// listener rests for a second; the peer is not lost.
    Later(io::Error),
}

impl Listener {
    /// Listens at `path`. A socket that nobody listens on any more, left by a process that was
    /// killed, is replaced.
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
    /// When it cannot be made non-blocking.
    pub fn new(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            path: None,
            rests_until: Cell::new(None),
        })
    }

    /// Where the socket is, if this listener made it.
    pub fn path(&self) -> Option<&SocketPath> {
        self.path.as_ref()
    }

    /// What to [`poll`](crate::poll) for before the next [`accept`](Self::accept), and for how long
    /// at most. While the listener rests it stays readable, so a caller that polled it would spin.
    pub fn interest(&self) -> (Interest<'_>, Option<Duration>) {
        match self.rest() {
            None => (Interest::readable(self), None),
            rest => (Interest::Nothing, rest),
        }
    }

    /// The next peer that connected. Never blocks, and asks for nobody while it rests.
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

    /// How long it still rests; `None`: it does not.
    pub fn rest(&self) -> Option<Duration> {
        let left = self
            .rests_until
            .get()?
            .checked_duration_since(Instant::now());
        left.filter(|left| !left.is_zero())
    }
}

impl AsFd for Listener {
    /// Readable when a peer waits, or when the socket cannot be used any more.
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
