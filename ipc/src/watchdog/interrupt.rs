//! Interrupts a thread that blocks in a system call.
//!
//! A signal whose handler was installed without SA_RESTART ends the system call with EINTR.

use std::io;

use libc::{SIGUSR1, c_int, c_void, siginfo_t};
use rustix::process::{Pid, getpid};
use rustix::thread::gettid;
use vmm_sys_util::signal::register_signal_handler;

/// The signal handler. It does nothing, because the signal itself interrupts the system call.
extern "C" fn ignore(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}

/// Installs the signal handler. Without it, the signal would end the process.
pub(super) fn install_handler() -> io::Result<()> {
    register_signal_handler(SIGUSR1, ignore).map_err(io::Error::from)
}

/// A thread of this process.
#[derive(Clone, Copy)]
pub(super) struct ThreadId(Pid);

impl ThreadId {
    /// The calling thread.
    pub(super) fn current() -> Self {
        Self(gettid())
    }

    /// Interrupts the thread's current system call if the call blocks. The signal handler has to be
    /// installed. A thread that has ended is ignored.
    pub(super) fn interrupt(self) {
        let (process, thread) = (getpid().as_raw_pid(), self.0.as_raw_pid());
        // SAFETY: tgkill takes only numbers. The handler of the signal does nothing.
        unsafe { libc::syscall(libc::SYS_tgkill, process, thread, SIGUSR1) };
    }
}
