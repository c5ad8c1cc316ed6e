//! Why there is no jail.

use std::io;

use policies::InstallError;

/// A part of the jail that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// The operating system refuses.
    #[error("cannot {what}: {source}; run with --sandbox=auto to do without, or see {see}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// Where to read about what it takes.
        see: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },
    /// There is no filter of system calls.
    #[error("cannot filter system calls; run with --sandbox=auto to do without")]
    Filter(#[from] InstallError),
    /// The kernel has no Landlock.
    #[error("this kernel has no Landlock; run with --sandbox=auto to do without")]
    NoLandlock,
}

impl JailError {
    /// Adds what was tried to an answer of the operating system.
    pub(super) fn refused<E: Into<io::Error>>(
        what: &'static str,
        see: &'static str,
    ) -> impl Fn(E) -> Self {
        move |error| Self::Refused {
            what,
            see,
            source: error.into(),
        }
    }
}
