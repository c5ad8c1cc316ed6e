//! Errors of the jail.

use std::io;

use landlock::RulesetError;
use policies::InstallError;

/// The reason for which a program cannot enter its jail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JailError {
    /// The process for the jail cannot be started.
    #[error("cannot start a process for the jail (see fork(2))")]
    Fork(#[source] io::Error),
    /// The preparation that the program makes in the new process failed.
    #[error("cannot get ready to serve")]
    Prepare(#[source] io::Error),
    /// The thread that ends blocked writes to peers' eventfds cannot be started.
    #[error("cannot start the thread that ends blocked writes")]
    Watchdog(#[source] io::Error),
    /// The process cannot get new namespaces.
    #[error("cannot leave the system's namespaces (see unshare(2))")]
    Namespaces(#[source] io::Error),
    /// The user cannot be mapped into the new user namespace.
    #[error("cannot map the user into a new user namespace (see user_namespaces(7))")]
    UserMap(#[source] io::Error),
    /// The root file system cannot be replaced.
    #[error("cannot replace the root file system (see pivot_root(2))")]
    Root(#[source] io::Error),
    /// The kernel has no Landlock, or Landlock is switched off.
    #[error("this kernel has no Landlock (see landlock(7))")]
    NoLandlock,
    /// Landlock cannot be set up.
    #[error("cannot set Landlock up (see landlock(7))")]
    Landlock(#[source] RulesetError),
    /// The limits on the resources of the process cannot be set.
    #[error("cannot limit resources (see setrlimit(2))")]
    Resources(#[source] io::Error),
    /// The privileges of the process cannot be dropped.
    #[error("cannot drop privileges (see capabilities(7))")]
    Privileges(#[source] io::Error),
    /// The signal handler that reports forbidden system calls cannot be installed.
    #[error("cannot handle SIGSYS (see sigaction(2))")]
    Handler(#[source] io::Error),
    /// The filter of system calls cannot be installed.
    #[error("cannot filter system calls (see seccomp(2))")]
    Filter(#[source] InstallError),
}

impl JailError {
    /// The advice for users: the requirements that the system has to meet for the failed part of
    /// the jail. `None` if there is no advice.
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Namespaces(_) | Self::UserMap(_) => Some(
                "namespaces need CAP_SYS_ADMIN or user namespaces, which this system, its \
                 container manager or a chroot may forbid",
            ),
            Self::NoLandlock => {
                Some("Landlock needs Linux 5.13 or later, with landlock in the boot option lsm")
            }
            Self::Filter(_) => Some("the filter needs a kernel with CONFIG_SECCOMP_FILTER"),
            _ => None,
        }
    }

    /// Whether the failed part of the jail is optional with `--sandbox=auto`.
    ///
    /// Every system lets a process drop its capabilities, and almost every kernel has filters of
    /// system calls. These parts are required, because without them a jail protects from little.
    pub fn is_optional(&self) -> bool {
        matches!(
            self,
            Self::Namespaces(_)
                | Self::UserMap(_)
                | Self::Root(_)
                | Self::NoLandlock
                | Self::Landlock(_)
        )
    }
}
