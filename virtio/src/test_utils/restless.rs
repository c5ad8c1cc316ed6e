//! A kick eventfd that is always readable.

use std::fs::read_to_string;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use ipc::SharedEventFd;

/// The initial value of the eventfd's counter, which is the number of its signals.
const SIGNALS: u32 = u32::MAX;

/// A kick eventfd that stays readable. A hostile front-end can make such an eventfd. With
/// EFD_SEMAPHORE, each read takes only one of its many signals.
#[derive(Debug)]
pub struct RestlessKick(Arc<SharedEventFd>);

impl RestlessKick {
    /// An eventfd with 2^32 - 1 signals.
    ///
    /// # Panics
    ///
    /// When the system is out of descriptors.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let flags = libc::EFD_SEMAPHORE | libc::EFD_NONBLOCK | libc::EFD_CLOEXEC;
        // SAFETY: the call has no pointers.
        let fd = unsafe { libc::eventfd(SIGNALS, flags) };
        assert!(fd >= 0, "eventfd: {}", std::io::Error::last_os_error());
        // SAFETY: the kernel has just made the descriptor, so nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Self(Arc::new(SharedEventFd::from_fd(fd).expect("an eventfd")))
    }

    /// The eventfd.
    pub fn eventfd(&self) -> &Arc<SharedEventFd> {
        &self.0
    }

    /// The number of signals that all processes have taken so far, minus the number of signals that
    /// were added after [`new`](Self::new).
    ///
    /// # Panics
    ///
    /// When the system has no /proc.
    pub fn taken(&self) -> u64 {
        let path = format!("/proc/self/fdinfo/{}", self.0.as_fd().as_raw_fd());
        let info = read_to_string(path).expect("/proc");
        let count = info
            .lines()
            .find_map(|line| line.strip_prefix("eventfd-count:"));
        let count = u64::from_str_radix(count.expect("an eventfd").trim(), 16);
        u64::from(SIGNALS).saturating_sub(count.expect("a hexadecimal number"))
    }
}
