//! The supervisor, which is the process outside the jail.

use std::io;

use ipc::{Interest, SocketPath, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, pidfd_open,
    set_parent_process_death_signal, waitid,
};

use super::JailError;
use crate::signals::StopSignal;

/// Starts a child process, and returns only in the child. The calling process becomes the
/// supervisor. It waits until the child ends, removes the sockets at `paths`, and exits with the
/// child's exit code.
pub fn fork(paths: &[SocketPath]) -> Result<(), JailError> {
    // SAFETY: there is only one thread, so the child inherits no lock that another thread holds.
    match unsafe { libc::fork() } {
        -1 => Err(JailError::Fork(io::Error::last_os_error())),
        0 => set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|errno| JailError::Fork(errno.into())),
        child => {
            let pid = Pid::from_raw(child).ok_or(io::ErrorKind::NotFound.into());
            let code = pid.and_then(supervise);
            for path in paths {
                path.remove();
            }
            std::process::exit(code.unwrap_or(1))
        }
    }
}

/// Passes signals on to the child until the child ends. Returns the exit code for the supervisor.
fn supervise(child: Pid) -> io::Result<i32> {
    let signals = StopSignal::install()?;
    let process = pidfd_open(child, PidfdFlags::empty())?;
    loop {
        let interests = [Interest::readable(&process), Interest::readable(&signals)];
        let [ended, _] = poll(interests, None)?;
        if ended {
            return exit_code(child);
        }
        if signals.take()? {
            // An error is ignored, because it means that the child has just ended.
            let _ = kill_process(child, Signal::TERM);
        }
    }
}

fn exit_code(child: Pid) -> io::Result<i32> {
    let status = waitid(WaitId::Pid(child), WaitIdOptions::EXITED)?;
    let Some(status) = status else { return Ok(1) };
    Ok(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        // This is the exit code that a shell reports for a process that was ended by a signal.
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    })
}
