//! The path of a socket in the file system.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::connect::connect;

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

/// Makes a non-blocking listening socket at `path`. If a socket is at `path` on which no process
/// listens, replaces the socket.
pub(crate) fn listen(path: &Path) -> Result<(UnixListener, SocketPath), ListenError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ListenError::NoFolder(path.to_owned()),
        io::ErrorKind::AddrInUse => ListenError::Busy(path.to_owned()),
        _ => ListenError::Io {
            path: path.to_owned(),
            source,
        },
    };
    remove_stale(path)?;
    let listener = UnixListener::bind(path).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok((listener, SocketPath::of(path)))
}

/// Removes the socket at `path` if no process listens on it, for instance because the process was
/// killed.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    let removed = match connect(path, CONNECT_LIMIT) {
        Ok(_) => return Err(ListenError::Busy(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            return Err(ListenError::Busy(path.to_owned()));
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
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
        let (first, _) = listen(&path).unwrap();
        assert!(matches!(listen(&path), Err(ListenError::Busy(_))));
        assert!(path.exists(), "the refused one leaves the other's socket");
        // The drop leaves a socket on which no process listens, as a killed process does.
        drop(first);
        let (_second, place) = listen(&path).unwrap();
        place.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_that_was_put_in_its_place_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("socket"), folder.path().join("other"));
        let (_ours, place) = listen(&path).unwrap();
        let (_theirs, _) = listen(&other).unwrap();
        fs::rename(&other, &path).unwrap();
        place.remove();
        assert!(path.exists());
    }

    #[test]
    fn what_is_not_a_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "keep me").unwrap();
        assert!(matches!(listen(&file), Err(ListenError::NotASocket(_))));
        assert_eq!(fs::read(&file).unwrap(), b"keep me");
    }

    #[test]
    fn a_missing_folder_is_reported_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing/socket");
        assert!(matches!(listen(&path), Err(ListenError::NoFolder(_))));
    }
}
