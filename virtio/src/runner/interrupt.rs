//! Interrupts a system call that blocks on a peer's descriptor.
//!
//! A peer shares the file status flags of its eventfd, so it can clear O_NONBLOCK at any time. A
//! signal whose handler was installed without SA_RESTART ends the blocked call with EINTR.

use std::io;
use std::sync::OnceLock;
use std::thread::JoinHandle;

use libc::{SIGUSR1, c_int, c_void, siginfo_t};
use vmm_sys_util::signal::{Killable, register_signal_handler};

/// Set when the signal handler is installed. Without the handler, the signal would end the process.
static INSTALLED: OnceLock<()> = OnceLock::new();

/// The signal handler. It does nothing, because the signal itself interrupts the system call.
extern "C" fn ignore(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}

/// Installs the signal handler. Call this before a filter of system calls forbids the installation.
pub(super) fn install() -> io::Result<()> {
    if INSTALLED.get().is_none() {
        register_signal_handler(SIGUSR1, ignore).map_err(io::Error::from)?;
        INSTALLED.get_or_init(|| ());
    }
    Ok(())
}

/// Interrupts the thread's current system call, if the thread is in one.
pub(super) fn interrupt(thread: &JoinHandle<()>) {
    if INSTALLED.get().is_none() {
        return;
    }
    if let Err(error) = thread.kill(SIGUSR1) {
        tracing::debug!("cannot interrupt a queue's thread: {error}");
    }
}
