//! Why a jail, or a part of it, cannot be had.

use std::io;

use landlock::RulesetError;
use policies::InstallError;

/// What failed when the jail was to close.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JailError {
    /// There is no pair of sockets to ask the supervisor by.
    #[error("cannot make a socket for the supervisor")]
    Inspector(#[source] io::Error),
    /// There is no process to be inside.
    #[error("cannot start a process for the jail (see fork(2))")]
    Fork(#[source] io::Error),
    /// What is to be served cannot get ready.
    #[error("cannot get ready to serve")]
    Prepare(#[source] io::Error),
    /// There are no namespaces to move to.
    #[error("cannot leave the system's namespaces (see unshare(2))")]
    Namespaces(#[source] io::Error),
    /// The user has no identity in the new user namespace.
    #[error("cannot map the user into a new user namespace (see user_namespaces(7))")]
    UserMap(#[source] io::Error),
    /// The root file system stays.
    #[error("cannot replace the root file system (see pivot_root(2))")]
    Root(#[source] io::Error),
    /// The kernel has no Landlock, or it is switched off.
    #[error("this kernel has no Landlock (see landlock(7))")]
    NoLandlock,
    /// Landlock restricts nothing.
    #[error("cannot set Landlock up (see landlock(7))")]
    Landlock(#[source] RulesetError),
    /// The process may use more resources than it needs.
    #[error("cannot limit resources (see setrlimit(2))")]
    Resources(#[source] io::Error),
    /// The process keeps privileges.
    #[error("cannot drop privileges (see capabilities(7))")]
    Privileges(#[source] io::Error),
    /// Nobody would say which system call was not allowed.
    #[error("cannot handle SIGSYS (see sigaction(2))")]
    Handler(#[source] io::Error),
    /// System calls are not filtered.
    #[error("cannot filter system calls (see seccomp(2))")]
    Filter(#[source] InstallError),
}

impl JailError {
    /// What the system needs for the part that failed, if that is known.
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

    /// Whether a jail may do without the part that failed.
    pub fn is_optional(&self) -> bool {
        !matches!(self, Self::Inspector(_) | Self::Fork(_) | Self::Prepare(_))
    }
}
