//! A process that flushes files to stable storage.
//!
//! A process that waits for storage cannot be interrupted, or even killed. The supervisor has to
//! end in time, so it lets another process wait. This process is started before the filter of
//! system calls is installed, so that the filter need not allow the start of processes.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use ipc::{Interest, poll};
use rustix::fs::fdatasync;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use super::birth::{exit_now, fork};
use crate::descriptors::close_all_but;
use crate::jail::JailError;

/// The maximum time to wait for the end of a flusher that has not begun to flush.
const PATIENCE: Duration = Duration::from_secs(1);

/// A handle of the process, which waits for [`Flusher::flush`]. The process ends if the handle is
/// dropped.
pub struct Flusher {
    pid: Pid,
    process: OwnedFd,
    begin: PipeWriter,
}

/// The reason why writes to the files may be lost.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// The command to flush cannot be sent, or the result of the flush is unknown.
    #[error("the process that flushes the image is gone")]
    Gone(#[source] io::Error),
    /// The storage has not answered.
    #[error("the storage did not flush the image in time")]
    Late,
    /// The storage has answered with an error.
    #[error("the storage failed to flush the image")]
    Failed,
}

impl Flusher {
    /// Starts the process. `confine` takes away from it all rights that it does not need.
    pub fn start(
        files: &[OwnedFd],
        confine: impl FnOnce() -> Result<(), JailError>,
    ) -> Result<Self, JailError> {
        let (theirs, begin) = io::pipe().map_err(JailError::Fork)?;
        let (mut ready, tell) = io::pipe().map_err(JailError::Fork)?;
        let Some(pid) = fork()? else {
            let flushed =
                prepare(&theirs, tell, files, confine).and_then(|()| flush(theirs, files));
            exit_now(flushed.is_err().into());
        };
        drop(tell);
        // The result does not matter. If the process has failed to prepare itself, it has ended,
        // and the supervisor will fail in the same way.
        let _ = ready.read(&mut [0]);
        let process = pidfd_open(pid, PidfdFlags::empty());
        let process = process.map_err(|errno| JailError::Fork(errno.into()))?;
        Ok(Self {
            pid,
            process,
            begin,
        })
    }

    /// Waits until the files are on stable storage, but not longer than until the deadline.
    pub fn flush(mut self, deadline: Instant) -> Result<(), FlushError> {
        self.begin.write_all(&[0]).map_err(FlushError::Gone)?;
        if !wait_for(
            &self.process,
            deadline.saturating_duration_since(Instant::now()),
        ) {
            return Err(FlushError::Late);
        }
        let status = waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED);
        match status.map_err(|errno| FlushError::Gone(errno.into()))? {
            Some(status) if status.exit_status() == Some(0) => Ok(()),
            _ => Err(FlushError::Failed),
        }
    }

    /// Ends the process without a flush. As long as it runs, the files stay locked, because it has
    /// them open.
    pub fn dismiss(self) {
        drop(self.begin);
        wait_for(&self.process, PATIENCE);
    }

    /// The descriptors that this handle needs.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.process.as_fd(), self.begin.as_fd()]
    }
}

/// Waits for the end of a process, for `patience` at most. Returns whether the process has ended.
fn wait_for(process: &OwnedFd, patience: Duration) -> bool {
    let ended = poll([Interest::readable(process)], Some(patience));
    ended.is_ok_and(|[ended]| ended)
}

/// Closes the descriptors and drops the rights that this process does not need. Then tells the
/// supervisor that the process is ready.
fn prepare(
    begin: &PipeReader,
    mut tell: PipeWriter,
    files: &[OwnedFd],
    confine: impl FnOnce() -> Result<(), JailError>,
) -> io::Result<()> {
    let needed = files.iter().map(AsRawFd::as_raw_fd);
    let needed = needed.chain([begin.as_raw_fd(), tell.as_raw_fd()]);
    // If the storage does not answer, this process outlives the program. The readers of the
    // standard streams wait until every process has closed them, so this process closes them, too.
    // SAFETY: this process uses no other descriptors, and it ends without dropping their owners.
    unsafe { close_all_but(needed) }?;
    confine().map_err(io::Error::other)?;
    tell.write_all(&[0])
}

/// Waits for the supervisor's command, and flushes the files.
fn flush(mut begin: PipeReader, files: &[OwnedFd]) -> io::Result<()> {
    begin.read_exact(&mut [0])?;
    for file in files {
        fdatasync(file)?;
    }
    Ok(())
}
