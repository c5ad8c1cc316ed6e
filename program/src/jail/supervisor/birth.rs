//! Starts the process in the jail, called "the process inside".
//!
//! A process that makes a new process-ID namespace does not enter it; only its children do. If the
//! supervisor made the namespace, it could start no other process after its first child had ended,
//! and it would be in the user namespace of the process inside. So a helper makes the namespaces,
//! starts the process inside, and ends. The process inside then becomes a child of the supervisor
//! (see PR_SET_CHILD_SUBREAPER in prctl(2)).

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use ipc::{Interest, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, pidfd_open, set_child_subreaper,
    set_parent_process_death_signal, waitid,
};

use crate::jail::JailError;

/// The process in which [`start`] returns.
pub enum Side {
    /// The process inside, after the supervisor has called [`Child::let_go`].
    Inside,
    /// The calling process. The process inside exists and waits.
    Outside(Child),
    /// The calling process. The helper has failed with this exit code, and has reported the error.
    Failed(i32),
}

/// A handle of the process inside, which waits for [`Child::let_go`]. If the handle is dropped
/// before this call, the process ends.
pub struct Child {
    pid: Pid,
    process: OwnedFd,
    go: PipeWriter,
}

impl Child {
    /// Lets the process go on. The caller must keep the handle afterwards, because the process
    /// takes a dropped handle for the end of the supervisor.
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

    /// The descriptors that this handle needs.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.process.as_fd(), self.go.as_fd()]
    }
}

/// Starts the process inside. The helper calls `leave` to enter new namespaces. This process must
/// have only one thread.
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

/// Starts the process inside, and ends the helper. Returns only in the process inside, once the
/// supervisor lets it go on.
fn help(mut tell: PipeWriter, mut wait: PipeReader) -> Result<(), JailError> {
    if let Some(inside) = fork()? {
        let told = tell.write_all(&inside.as_raw_pid().to_ne_bytes());
        exit_now(told.is_err().into());
    }
    // The supervisor has failed, and reports the error itself.
    if wait.read_exact(&mut [0]).is_err() {
        exit_now(1);
    }
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed)?;
    // If the supervisor ended before the previous call, the kernel sends no signal.
    let gone = poll([Interest::readable(&wait)], Some(Duration::ZERO));
    if gone.map_err(JailError::Fork)? == [true] {
        exit_now(1);
    }
    Ok(())
}

/// Waits for the end of the helper. The helper's child is then a child of this process.
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

/// Ends this process at once, without the exit handlers that it has from its parent (see _exit(2)).
pub fn exit_now(code: i32) -> ! {
    // SAFETY: the call ends this process, and nothing else depends on it.
    unsafe { libc::_exit(code) }
}

/// Waits for the end of a child, and returns its exit code. If a signal ended the child, returns
/// the exit code that a shell would report.
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
