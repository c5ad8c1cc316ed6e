//! Starts the process inside.
//!
//! Only a child of the process that leaves the namespace of processes is inside the new one. If the
//! supervisor itself left, it could start no process after the first one had ended, and it would
//! be in the user namespace of the process inside. So a helper leaves, starts the process inside,
//! and ends. The process inside then becomes a child of the supervisor (see
//! PR_SET_CHILD_SUBREAPER in prctl(2)).

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use ipc::{Interest, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, pidfd_open, set_child_subreaper,
    set_parent_process_death_signal, waitid,
};

use crate::jail::JailError;

/// The process that returns from [`start`].
pub enum Side {
    /// The process inside, after the supervisor has called [`Child::let_go`].
    Inside,
    /// The process that called. The process inside exists and waits.
    Outside(Child),
    /// The process that called. The helper has failed with this exit code, and has said why.
    Failed(i32),
}

/// The process inside, which waits until the supervisor lets it go on. It ends if this is dropped.
pub struct Child {
    pid: Pid,
    process: OwnedFd,
    go: PipeWriter,
}

impl Child {
    /// Lets the process go on. The process still needs this object to see that the supervisor is
    /// alive.
    pub fn let_go(&mut self) -> io::Result<()> {
        self.go.write_all(&[0])
    }

    /// A descriptor of the process. It is readable when the process has ended.
    pub fn process(&self) -> &OwnedFd {
        &self.process
    }

    /// The exit code of the process. Waits for its end.
    pub fn exit_code(&self) -> io::Result<i32> {
        exit_code(self.pid)
    }

    /// The descriptors that this needs.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.process.as_fd(), self.go.as_fd()]
    }
}

/// Starts the process inside. The helper calls `leave` to leave namespaces. There must be only one
/// thread.
pub fn start(leave: impl FnOnce() -> Result<(), JailError>) -> Result<Side, JailError> {
    let (told, tell) = io::pipe().map_err(JailError::Fork)?;
    let (wait, go) = io::pipe().map_err(JailError::Fork)?;
    set_child_subreaper(Some(getpid())).map_err(failed)?;
    let Some(helper) = fork()? else {
        drop(go);
        leave()?;
        return help(tell, wait).map(|()| Side::Inside);
    };
    drop(tell);
    adopt(helper, told, go).map_err(JailError::Fork)
}

/// Returns in a new process, which is inside, once it may go on. The helper ends.
fn help(mut tell: PipeWriter, mut wait: PipeReader) -> Result<(), JailError> {
    if let Some(inside) = fork()? {
        let told = tell.write_all(&inside.as_raw_pid().to_ne_bytes());
        exit_now(told.is_err().into());
    }
    // A supervisor that fails reports the error itself.
    if wait.read_exact(&mut [0]).is_err() {
        exit_now(1);
    }
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed)?;
    // The signal does not come if the supervisor ended earlier.
    let gone = poll([Interest::readable(&wait)], Some(Duration::ZERO));
    if gone.map_err(JailError::Fork)? == [true] {
        exit_now(1);
    }
    Ok(())
}

/// Waits for the end of the helper, whose child is then a child of this process.
fn adopt(helper: Pid, mut told: PipeReader, go: PipeWriter) -> io::Result<Side> {
    let mut pid = [0; size_of::<i32>()];
    let told = told.read_exact(&mut pid);
    let code = exit_code(helper)?;
    if told.is_err() {
        return Ok(Side::Failed(code));
    }
    let pid = Pid::from_raw(i32::from_ne_bytes(pid)).ok_or(io::ErrorKind::InvalidData)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    Ok(Side::Outside(Child { pid, process, go }))
}

/// Starts a process. Returns `None` in that process.
pub fn fork() -> Result<Option<Pid>, JailError> {
    // SAFETY: there is only one thread, so the child inherits no lock that another thread holds.
    match unsafe { libc::fork() } {
        -1 => Err(JailError::Fork(io::Error::last_os_error())),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// Ends this process without the work that its parent does at its own end.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: the call ends this process, and nothing else depends on it.
    unsafe { libc::_exit(code) }
}

/// Waits for the end of a child. Returns its exit code, or for a process that was ended by a signal
/// the exit code that a shell reports.
fn exit_code(child: Pid) -> io::Result<i32> {
    let status = waitid(WaitId::Pid(child), WaitIdOptions::EXITED)?;
    let status = status.ok_or(io::ErrorKind::NotFound)?;
    Ok(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    })
}

fn failed(errno: rustix::io::Errno) -> JailError {
    JailError::Fork(errno.into())
}
