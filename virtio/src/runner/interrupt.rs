//! Interrupts a system call that blocks on an eventfd of a peer.
//!
//! A peer and this process share the file status flags of the peer's eventfd, so the peer can clear
//! O_NONBLOCK at any time. A signal whose handler was installed without SA_RESTART ends the blocked
//! system call with EINTR.

use std::io;
use std::sync::OnceLock;
use std::thread::JoinHandle;

use libc::{SIGUSR1, c_int, c_void, siginfo_t};
use vmm_sys_util::signal::{Killable, register_signal_handler};

/// Set when the signal handler is installed. Earlier no signal is sent, because a signal that has
/// no handler would end the process.
static INSTALLED: OnceLock<()> = OnceLock::new();

/// The signal handler. It does nothing, because the signal itself interrupts the system call.
extern "C" fn ignore(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}

/// Installs the signal handler. Call this function before a system call filter forbids the
/// installation.
pub(super) fn install() -> io::Result<()> {
    if INSTALLED.get().is_none() {
        register_signal_handler(SIGUSR1, ignore).map_err(io::Error::from)?;
        INSTALLED.get_or_init(|| ());
    }
    Ok(())
}

/// Interrupts the thread's current system call, if the thread is in a system call.
pub(super) fn interrupt(thread: &JoinHandle<()>) {
    if INSTALLED.get().is_none() {
        return;
    }
    if let Err(error) = thread.kill(SIGUSR1) {
        tracing::debug!("cannot interrupt a queue's thread: {error}");
    }
}
