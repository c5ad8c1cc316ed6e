//! The users who may connect to a socket in the file system.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, Gid, Mode, chownat, fchmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use rustix::process::umask;

/// Held while the umask is changed.
static UMASK: Mutex<()> = Mutex::new(());

/// The users who may connect to a socket in the file system. A user has to have the permission to
/// write to the socket's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketAccess {
    /// The permissions of the socket's file, whatever the umask of the process.
    pub mode: u32,
    /// The group of the socket's file. `None`: the group of the process.
    pub group: Option<u32>,
}

impl Default for SocketAccess {
    /// Only the user of the process may connect.
    fn default() -> Self {
        Self {
            mode: 0o600,
            group: None,
        }
    }
}

impl SocketAccess {
    /// Makes a socket that does not block and does not listen yet. Changes the umask of the process
    /// for a moment.
    ///
    /// The file has its final permissions from the start. Nobody can connect before the socket
    /// listens, and the caller sets the file's group before that.
    pub(crate) fn bind(self, path: &Path) -> io::Result<UnixListener> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // On Linux, bind(2) gives the socket's file the permissions of the socket, except those
        // that the umask forbids.
        fchmod(&socket, Mode::from_raw_mode(self.mode))?;
        let address = SocketAddrUnix::new(path)?;
        let _alone = UMASK.lock().unwrap_or_else(PoisonError::into_inner);
        let before = umask(Mode::empty());
        let bound = bind(&socket, &address);
        umask(before);
        bound?;
        Ok(UnixListener::from(socket))
    }

    /// Gives the socket's file its group.
    pub(crate) fn give(self, path: &Path) -> io::Result<()> {
        let Some(group) = self.group else {
            return Ok(());
        };
        let (group, flags) = (Gid::from_raw(group), AtFlags::SYMLINK_NOFOLLOW);
        Ok(chownat(CWD, path, None, Some(group), flags)?)
    }
}
