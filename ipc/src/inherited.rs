//! Sockets that the program inherited from the process that started it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::net::{AddressFamily, SocketType, getpeername, sockopt};

use crate::listener::Listener;

/// A Unix stream socket that this process inherited from the process that started it.
#[derive(Debug)]
pub enum Inherited {
    /// A socket that is already connected to a peer.
    Connected(UnixStream),
    /// A socket that listens for peers. Its path is never removed, because the path belongs to the
    /// process that made the socket.
    Listening(Listener),
}

/// The reason for which a descriptor cannot be used as an inherited socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InheritError {
    /// No descriptor with this number is open.
    #[error("file descriptor {0} is not open")]
    NotOpen(RawFd),
    /// The descriptor has the flag FD_CLOEXEC, which inherited descriptors do not have. This
    /// program opened the descriptor itself.
    #[error("file descriptor {0} was not inherited")]
    NotInherited(RawFd),
    /// The descriptor is not a Unix stream socket.
    #[error("file descriptor {0} is not a Unix stream socket")]
    NotAUnixStream(RawFd),
    /// The socket is neither connected nor listening.
    #[error("file descriptor {0} is a socket that is neither connected nor listening")]
    Idle(RawFd),
    /// The operating system reports a failure.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Inherited {
    /// Takes over the socket with the descriptor `number`, and sets the flag FD_CLOEXEC.
    ///
    /// # Safety
    ///
    /// Nothing else in the process may use or close the descriptor `number`, unless the descriptor
    /// has the flag FD_CLOEXEC. A descriptor with this flag is refused.
    ///
    /// # Errors
    ///
    /// [`InheritError`]. The descriptor stays open after an error, unless it is a listening socket
    /// that cannot be made non-blocking.
    pub unsafe fn take_over(number: RawFd) -> Result<Self, InheritError> {
        if number < 0 {
            return Err(InheritError::NotOpen(number));
        }
        // SAFETY: the number is not negative. By this function's contract, an open descriptor stays
        // open. If no descriptor with this number is open, each system call fails with EBADF.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        let flags = fcntl_getfd(fd).map_err(|_| InheritError::NotOpen(number))?;
        if flags.contains(FdFlags::CLOEXEC) {
            return Err(InheritError::NotInherited(number));
        }
        let listens = listens(fd)?;
        fcntl_setfd(fd, FdFlags::CLOEXEC).map_err(io::Error::from)?;
        // SAFETY: the descriptor is open, because `listens` found it to be a socket. By this
        // function's contract, nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        if listens {
            Ok(Self::Listening(Listener::new(fd.into())?))
        } else {
            Ok(Self::Connected(fd.into()))
        }
    }
}

/// Returns true for a listening Unix stream socket, false for a connected Unix stream socket, and
/// an error for any other file.
fn listens(fd: BorrowedFd<'_>) -> Result<bool, InheritError> {
    let number = fd.as_raw_fd();
    let domain = sockopt::socket_domain(fd).map_err(|_| InheritError::NotAUnixStream(number))?;
    let kind = sockopt::socket_type(fd).map_err(io::Error::from)?;
    if domain != AddressFamily::UNIX || kind != SocketType::STREAM {
        return Err(InheritError::NotAUnixStream(number));
    }
    let listens = sockopt::socket_acceptconn(fd).map_err(io::Error::from)?;
    if !listens && getpeername(fd).is_err() {
        return Err(InheritError::Idle(number));
    }
    Ok(listens)
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, IntoRawFd};
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;
    use crate::Accepted;

    /// Clears FD_CLOEXEC of a file, so that the file looks as if this process had inherited it.
    fn inherit(file: impl AsFd) {
        fcntl_setfd(file, FdFlags::empty()).unwrap();
    }

    fn take_over(file: impl IntoRawFd + AsFd) -> Result<Inherited, InheritError> {
        inherit(&file);
        // SAFETY: `into_raw_fd` gives up the ownership, so nothing else uses the descriptor.
        unsafe { Inherited::take_over(file.into_raw_fd()) }
    }

    #[test]
    fn a_connected_socket_is_its_peers_other_end() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let Inherited::Connected(ours) = take_over(ours).unwrap() else {
            panic!("it is connected");
        };
        assert_eq!(fcntl_getfd(&ours).unwrap(), FdFlags::CLOEXEC);
        drop(ours);
        assert_eq!(std::io::Read::read(&mut &theirs, &mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_listening_socket_accepts_peers_and_leaves_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let made = UnixListener::bind(&path).unwrap();
        let Inherited::Listening(listener) = take_over(made).unwrap() else {
            panic!("it listens");
        };
        assert!(matches!(listener.accept().unwrap(), Accepted::Nobody));
        let _peer = UnixStream::connect(&path).unwrap();
        assert!(matches!(listener.accept().unwrap(), Accepted::Peer(_)));
        drop(listener);
        assert!(path.exists());
    }

    #[test]
    fn other_files_are_refused_and_stay_open() {
        let file = tempfile::tempfile().unwrap();
        let datagram = UnixDatagram::unbound().unwrap();
        inherit(&file);
        inherit(&datagram);
        for number in [file.as_raw_fd(), datagram.as_raw_fd()] {
            // SAFETY: `take_over` refuses this descriptor, so the descriptor stays with its owner.
            let refused = unsafe { Inherited::take_over(number) };
            assert!(matches!(refused, Err(InheritError::NotAUnixStream(_))));
        }
        file.metadata().unwrap();
        datagram.local_addr().unwrap();
    }

    #[test]
    fn a_socket_without_a_peer_is_refused() {
        let idle = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        // SAFETY: `take_over` refuses this descriptor, so the descriptor stays with its owner.
        let refused = unsafe { Inherited::take_over(idle.as_raw_fd()) };
        assert!(matches!(refused, Err(InheritError::Idle(_))));
    }

    #[test]
    fn a_socket_of_the_program_itself_is_refused() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        // SAFETY: `take_over` refuses this descriptor, so the descriptor stays with its owner.
        let refused = unsafe { Inherited::take_over(ours.as_raw_fd()) };
        assert!(matches!(refused, Err(InheritError::NotInherited(_))));
    }

    #[test]
    fn a_number_without_a_file_is_refused() {
        for number in [-1, i32::MAX] {
            // SAFETY: no descriptor with this number is open.
            let refused = unsafe { Inherited::take_over(number) };
            assert!(matches!(refused, Err(InheritError::NotOpen(_))));
        }
    }
}
