//! The process outside the jail.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, pidfd_open,
    set_parent_process_death_signal, waitid,
};
use vvu::vhost_user::{Outside, SocketPath};

use super::JailError;
use crate::signals::StopSignal;

/// Returns in a new process; the one that called waits for its end and exits as it did.
pub fn fork(paths: &[SocketPath], outside: Outside) -> Result<(), JailError> {
    let refused = || JailError::refused::<io::Error>("start a process of its own", "fork(2)");
    // SAFETY: there is only one thread, so that the child can go on as if nothing had happened.
    match unsafe { libc::fork() } {
        -1 => Err(refused()(io::Error::last_os_error())),
        0 => set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|errno| refused()(errno.into())),
        child => {
            let pid = Pid::from_raw(child).ok_or(io::ErrorKind::NotFound.into());
            let code = pid.and_then(|pid| supervise(pid, outside));
            for path in paths {
                path.remove();
            }
            std::process::exit(code.unwrap_or(1))
        }
    }
}

/// Passes signals on to the child and answers it until it ends, and says how it exited.
fn supervise(child: Pid, outside: Outside) -> io::Result<i32> {
    let signals = StopSignal::install()?;
    let process = pidfd_open(child, PidfdFlags::empty())?;
    let mut outside = Some(outside);
    loop {
        let mut fds = vec![process.as_fd(), signals.as_fd()];
        fds.extend(outside.as_ref().map(Outside::as_fd));
        let ready = readable(&fds)?;
        if ready[0] {
            return exit_code(child);
        }
        if signals.take()? {
            // It fails only when the child has just ended.
            let _ = kill_process(child, Signal::TERM);
        }
        // One that asks what makes no sense is answered no more.
        outside = outside.and_then(|mut outside| outside.answer().is_ok().then_some(outside));
    }
}

/// Waits until some of these are readable, and says which.
fn readable(fds: &[BorrowedFd<'_>]) -> io::Result<Vec<bool>> {
    let fds = fds
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN));
    let mut fds: Vec<_> = fds.collect();
    match poll(&mut fds, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
}

fn exit_code(child: Pid) -> io::Result<i32> {
    let status = waitid(WaitId::Pid(child), WaitIdOptions::EXITED)?;
    let Some(status) = status else { return Ok(1) };
    Ok(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        // As a shell says it.
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    })
}
