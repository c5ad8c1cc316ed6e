//! Sockets that peers connect to.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::poll::Interest;
use crate::socket_access::SocketAccess;
use crate::socket_path::{ListenError, SocketPath, listen};

/// The time for which a listener accepts no peers after a call of [`Listener::begin_rest`].
const REST: Duration = Duration::from_secs(1);

/// A listening Unix socket. A socket that [`Listener::bind`] made is removed from the file system
/// when the listener is dropped.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: Option<SocketPath>,
    /// The time until which the listener accepts no peers. `None` if it has never stopped accepting
    /// peers.
    rests_until: Cell<Option<Instant>>,
}

/// The result of [`Listener::accept`].
#[derive(Debug)]
pub enum Accepted {
    /// The connection to a new peer.
    Peer(UnixStream),
    /// No peer waits to be accepted, or the listener accepts no peers at the moment. See
    /// [`Listener::rest`].
    Nobody,
    /// A peer may be waiting, but the operating system lacks descriptors or memory, as the error
    /// says. The listener accepts no peers for a second, and the peer continues to wait.
    Later(io::Error),
}

impl Listener {
    /// Listens at `path` for peers of the same user. If a socket is already at `path`, and no
    /// process listens on it, replaces it.
    ///
    /// # Errors
    ///
    /// See [`ListenError`].
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        Self::bind_for(path, SocketAccess::default())
    }

    /// As [`Listener::bind`], for peers of the given users. Changes the umask of the process for a
    /// moment, so call this function before other threads make files.
    ///
    /// # Errors
    ///
    /// See [`ListenError`].
    pub fn bind_for(path: &Path, access: SocketAccess) -> Result<Self, ListenError> {
        let (listener, path) = listen(path, access)?;
        Ok(Self {
            listener,
            path: Some(path),
            rests_until: Cell::new(None),
        })
    }

    /// Makes a listener from a socket that already listens. The path of the socket is never
    /// removed.
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

    /// The event to wait for with [`poll`](crate::poll) before the next [`accept`](Self::accept),
    /// and the maximum time to wait. While the listener accepts no peers, the event is
    /// [`Interest::Nothing`], because the socket may be readable all the time, and a poll of it
    /// would return at once.
    pub fn interest(&self) -> (Interest<'_>, Option<Duration>) {
        match self.rest() {
            None => (Interest::readable(self), None),
            rest => (Interest::Nothing, rest),
        }
    }

    /// Accepts the next peer. Never blocks. Accepts no peer for a second after [`Accepted::Later`].
    ///
    /// # Errors
    ///
    /// When the socket can no longer be used.
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
                self.begin_rest();
                Ok(Accepted::Later(error))
            }
            _ => Err(error),
        }
    }

    /// Makes the listener accept no peers for a second. Call this method after you have dropped a
    /// peer that costs other peers some time whenever it connects.
    pub fn begin_rest(&self) {
        self.rests_until.set(Some(Instant::now() + REST));
    }

    /// The remaining time for which the listener accepts no peers. `None` means that it accepts
    /// peers.
    pub fn rest(&self) -> Option<Duration> {
        let left = self
            .rests_until
            .get()?
            .checked_duration_since(Instant::now());
        left.filter(|left| !left.is_zero())
    }
}

impl AsFd for Listener {
    /// The descriptor is readable when a peer waits to be accepted, or when the socket can no
    /// longer be used.
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
        for errno in [Errno::AGAIN, Errno::INTR, Errno::CONNABORTED] {
            let judged = listener.judge(Err(errno.into())).unwrap();
            assert!(matches!(judged, Accepted::Nobody), "{errno}");
            assert!(listener.rest().is_none());
        }
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
