//! The path of a socket in the file system.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use crate::connect::connect;
use crate::poll::{Interest, poll};
use crate::socket_access::SocketAccess;

/// The time limit for finding out whether another process listens at a path.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// The path of a socket and the identity of its file. The identity prevents the removal of another
/// file at the same path.
#[derive(Clone, Debug)]
pub struct SocketPath {
    path: PathBuf,
    /// The identity of the socket's file. `None` means that the socket was removed right after it
    /// was made.
    file: Option<FileIdentity>,
}

/// The identity of a file. The inode number alone does not identify a file, because the file system
/// may reuse the number for another file later.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FileIdentity {
    device: u64,
    inode: u64,
    /// The time of the file's creation. `None` means that the file system does not store this time.
    created: Option<SystemTime>,
}

impl SocketPath {
    /// The path and the identity of the socket that is at `path` now.
    fn of(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            file: file_at(path),
        }
    }

    /// The folder that the socket is in.
    pub fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        }
    }

    /// Removes the socket, unless another file has replaced it at its path.
    pub fn remove(&self) {
        if self.file.is_some() && file_at(&self.path) == self.file {
            // An error is ignored, because the next listener at this path replaces the socket
            // anyway.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn file_at(path: &Path) -> Option<FileIdentity> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some(FileIdentity {
        device: metadata.dev(),
        inode: metadata.ino(),
        created: metadata.created().ok(),
    })
}

/// The reason for which the program cannot listen at a path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another process listens at the path.
    #[error(
        "{}: another process listens on this socket; stop it or choose another path",
        .0.display()
    )]
    Busy(PathBuf),
    /// The path exists and is not a socket.
    #[error("{}: exists and is not a socket; remove it or choose another path", .0.display())]
    NotASocket(PathBuf),
    /// The folder of the path does not exist.
    #[error("{}: its folder does not exist; make it first", .0.display())]
    NoFolder(PathBuf),
    /// The operating system reports another failure.
    #[error("{}: cannot listen", .path.display())]
    Io {
        /// The path to listen at.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// The maximum number of peers that wait until they are accepted.
const BACKLOG: i32 = 128;

/// Makes a non-blocking listening socket at `path`. If a socket is already there, and no process
/// listens on it, replaces it.
pub(crate) fn listen(
    path: &Path,
    access: SocketAccess,
) -> Result<(UnixListener, SocketPath), ListenError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ListenError::NoFolder(path.to_owned()),
        io::ErrorKind::AddrInUse => ListenError::Busy(path.to_owned()),
        _ => ListenError::Io {
            path: path.to_owned(),
            source,
        },
    };
    remove_stale(path)?;
    let socket = access.bind(path).map_err(failed)?;
    let file = SocketPath::of(path);
    let listens = access
        .give(path)
        .and_then(|()| Ok(rustix::net::listen(&socket, BACKLOG)?));
    listens.inspect_err(|_| file.remove()).map_err(failed)?;
    Ok((socket, file))
}

/// The maximum time to wait for the end of a process that listens at a path. A process that was
/// killed under load listens for some more milliseconds, because the kernel first ends the requests
/// of the process.
const PATIENCE: Duration = Duration::from_secs(2);

/// The pause between two attempts to find out whether a process listens at a path.
const PAUSE: Duration = Duration::from_millis(10);

/// Connects to the process that listens at `path`, and waits for its end. If the process lives on,
/// returns [`io::ErrorKind::AddrInUse`] after [`PATIENCE`]. Otherwise, returns the error of the
/// connection to a socket without a process.
fn outlive_listener(path: &Path) -> io::Error {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let connection = match connect(path, CONNECT_LIMIT) {
            Ok(connection) => connection,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return io::ErrorKind::AddrInUse.into();
            }
            Err(error) => return error,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        // The connection becomes readable when its other end is closed.
        match poll([Interest::readable(&connection)], Some(left)) {
            Ok([true]) if !left.is_zero() => sleep(PAUSE),
            Ok(_) => return io::ErrorKind::AddrInUse.into(),
            Err(error) => return error,
        }
    }
}

/// Removes the socket at `path` if no process listens on it, for instance because the process that
/// listened was killed.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    let error = outlive_listener(path);
    let removed = match error.kind() {
        io::ErrorKind::AddrInUse => return Err(ListenError::Busy(path.to_owned())),
        io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Err(error),
    };
    match removed {
        // Another process has just removed the socket.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|source| ListenError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_path_is_taken_over_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let (first, _) = listen(&path, SocketAccess::default()).unwrap();
        assert!(matches!(
            listen(&path, SocketAccess::default()),
            Err(ListenError::Busy(_))
        ));
        assert!(path.exists(), "the refused one leaves the other's socket");
        // The socket's file stays, but no process listens. A killed process leaves the same state.
        drop(first);
        let (_second, place) = listen(&path, SocketAccess::default()).unwrap();
        place.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_listener_that_ends_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let (first, _) = listen(&path, SocketAccess::default()).unwrap();
        let second = std::thread::spawn({
            let path = path.clone();
            move || listen(&path, SocketAccess::default()).map(drop)
        });
        // The connection of the second listener has come, so the second listener waits.
        let connected = poll([Interest::readable(&first)], Some(Duration::from_secs(20)));
        assert_eq!(connected.unwrap(), [true]);
        drop(first);
        second.join().unwrap().unwrap();
    }

    #[test]
    fn a_socket_that_was_put_in_its_place_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("socket"), folder.path().join("other"));
        let (_ours, place) = listen(&path, SocketAccess::default()).unwrap();
        let (_theirs, _) = listen(&other, SocketAccess::default()).unwrap();
        fs::rename(&other, &path).unwrap();
        place.remove();
        assert!(path.exists());
    }

    #[test]
    fn what_is_not_a_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "keep me").unwrap();
        assert!(matches!(
            listen(&file, SocketAccess::default()),
            Err(ListenError::NotASocket(_))
        ));
        assert_eq!(fs::read(&file).unwrap(), b"keep me");
    }

    /// The permissions and the group of a file.
    fn access_of(path: &Path) -> (u32, u32) {
        let metadata = fs::metadata(path).unwrap();
        (metadata.mode() & 0o7777, metadata.gid())
    }

    #[test]
    fn a_socket_has_its_permissions_whatever_the_umask() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o600, 0o660, 0o666, 0o777, 0o000] {
            let path = folder.path().join(format!("{mode:o}"));
            let (mode, group) = (mode, None);
            let _socket = listen(&path, SocketAccess { mode, group }).unwrap();
            assert_eq!(access_of(&path).0, mode);
        }
        let path = folder.path().join("default");
        let _socket = listen(&path, SocketAccess::default()).unwrap();
        assert_eq!(access_of(&path).0, 0o600, "other users cannot connect");
    }

    #[test]
    fn a_socket_can_be_given_to_another_group_of_the_user() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let root = rustix::process::geteuid().is_root();
        let groups = rustix::process::getgroups().unwrap();
        let group = match groups.first() {
            _ if root => 12345,
            Some(group) => group.as_raw(),
            None => return,
        };
        let access = SocketAccess {
            mode: 0o660,
            group: Some(group),
        };
        let _socket = listen(&path, access).unwrap();
        assert_eq!(access_of(&path), (0o660, group));
    }

    #[test]
    fn a_missing_folder_is_reported_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing/socket");
        assert!(matches!(
            listen(&path, SocketAccess::default()),
            Err(ListenError::NoFolder(_))
        ));
    }
}
