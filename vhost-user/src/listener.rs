//! Sockets that front-ends connect to.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

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
