//! The supervisor, which is the process outside the jail.

mod birth;
mod flusher;
mod stop;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::exit;
use std::time::{Duration, Instant};

use ipc::SocketPath;

use super::JailError;
use crate::descriptors::{STANDARD, close_all_but};
use crate::{StopSignal, one_line};
use birth::{Child, Side};
use flusher::Flusher;
use stop::End;

/// The exit code of a program that had to be killed to stop. Everything that was written to its
/// image is on stable storage.
pub const KILLED_EXIT_CODE: i32 = 4;

/// The work of the supervisor when the process in the jail has ended.
#[derive(Debug)]
pub struct Duties {
    /// Sockets to remove.
    pub sockets: Vec<SocketPath>,
    /// Files to flush to stable storage, unless the process in the jail ended with success.
    pub files: Vec<OwnedFd>,
    /// The maximum time from a stop signal to the end of the supervisor.
    pub stop_timeout: Duration,
}

/// Starts a child process, and returns only in the child. The calling process becomes the
/// supervisor, and exits with the child's exit code.
///
/// `leave` runs in a helper, and the child is in the namespaces that the helper has entered.
/// `confine` takes away from the supervisor all rights that its duties do not need.
pub fn fork(
    duties: &Duties,
    leave: impl FnOnce() -> Result<(), JailError>,
    confine: impl Fn() -> Result<(), JailError>,
) -> Result<(), JailError> {
    let code = match birth::start(leave)? {
        Side::Inside => return Ok(()),
        Side::Failed(code) => code,
        Side::Outside(child) => {
            // After an error here, `child` is dropped, which ends the child process.
            let flusher = match &duties.files[..] {
                [] => None,
                files => Some(Flusher::start(files, &confine)?),
            };
            let signals = StopSignal::install().map_err(JailError::Fork)?;
            confine()?;
            supervise(child, flusher, &signals, duties.stop_timeout).unwrap_or_else(|error| {
                tracing::error!("the supervisor failed: {error}");
                1
            })
        }
    };
    for socket in &duties.sockets {
        socket.remove();
    }
    exit(code)
}

/// Waits until the child has ended, flushes the files if necessary, and returns the exit code for
/// the supervisor.
fn supervise(
    mut child: Child,
    flusher: Option<Flusher>,
    signals: &StopSignal,
    stop_timeout: Duration,
) -> io::Result<i32> {
    let needed = flusher.iter().flat_map(Flusher::descriptors);
    let needed = needed.chain(child.descriptors()).chain([signals.as_fd()]);
    // SAFETY: this process uses no other descriptors, and it exits without dropping their owners.
    unsafe { close_all_but(needed.map(|fd| fd.as_raw_fd()).chain(STANDARD)) }?;
    child.let_go()?;
    let end = stop::wait(&child, signals, stop_timeout)?;
    let (code, deadline) = match end {
        End::Exited(code) => (code, Instant::now() + stop_timeout),
        End::Killed { deadline } => (KILLED_EXIT_CODE, deadline),
    };
    Ok(match flusher {
        None => code,
        Some(flusher) if code == 0 => {
            flusher.dismiss();
            code
        }
        Some(flusher) => flush(flusher, deadline).map_or(1, |()| code),
    })
}

/// Flushes the files to stable storage, and logs the result.
fn flush(flusher: Flusher, deadline: Instant) -> Result<(), flusher::FlushError> {
    let flushed = flusher.flush(deadline);
    match &flushed {
        Ok(()) => tracing::info!("all data that was written to the image is on stable storage"),
        Err(error) => tracing::error!("writes to the image may be lost: {}", one_line(error)),
    }
    flushed
}
