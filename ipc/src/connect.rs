//! Connecting to a Unix socket.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

/// Connects to the stream socket that listens at `path`. If the listener's queue of connections is
/// full, waits until it has room, for `timeout` at most.
///
/// # Errors
///
/// [`io::ErrorKind::TimedOut`], or the error of the operating system.
pub fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let (kind, flags) = (SocketType::STREAM, SocketFlags::CLOEXEC);
    let socket = socket_with(AddressFamily::UNIX, kind, flags, None)?;
    // For a Unix socket, the time limit for sending is also the time limit for connecting.
    set_socket_timeout(&socket, Timeout::Send, Some(timeout))?;
    let address = SocketAddrUnix::new(path)?;
    match retry_on_intr(|| rustix::net::connect(&socket, &address)) {
        Ok(()) => Ok(socket.into()),
        Err(Errno::AGAIN) => Err(io::ErrorKind::TimedOut.into()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use rustix::net::{bind, listen};

    use super::*;

    #[test]
    fn a_listener_that_accepts_nobody_is_waited_for_with_a_time_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        );
        let listener = listener.unwrap();
        bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        // With a backlog of 0, one connection can wait to be accepted.
        listen(&listener, 0).unwrap();
        let limit = Duration::from_millis(50);
        let _first = connect(&path, limit).unwrap();
        let (done, result) = channel();
        thread::spawn(move || done.send(connect(&path, limit).unwrap_err().kind()));
        let second = result.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(second, io::ErrorKind::TimedOut);
    }
}
