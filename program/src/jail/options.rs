//! The command-line options of the jail.

use clap::{Args, ValueEnum};
use policies::Violation;

/// The options that choose the jail of a program.
#[derive(Args, Clone, Copy, Debug)]
pub struct Options {
    /// The jail in which the program runs. In the whole jail, the program sees no files, no network
    /// and no other process, has no privileges, and can make only the system calls of its policy.
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    pub sandbox: Sandbox,

    /// The reaction to a system call that the policy does not allow.
    #[arg(long, value_name = "ACTION", value_enum, default_value_t)]
    pub seccomp_action: SeccompAction,
}

/// The choice of the parts of the jail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Sandbox {
    /// All parts of the jail that this system allows. A warning lists the missing parts.
    #[default]
    Auto,
    /// The whole jail. If a part is not possible, the program does not start.
    Full,
    /// Only the filter of system calls. If it is not possible, the program does not start.
    Seccomp,
    /// No jail.
    None,
}

/// The reaction to a system call that the policy does not allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SeccompAction {
    /// The program reports the call and exits with status 3.
    #[default]
    Trap,
    /// The kernel kills the program with SIGSYS.
    Kill,
    /// The kernel logs the call and carries it out. Use this value to find the calls that a policy
    /// lacks.
    Log,
    /// The call fails with EPERM.
    Errno,
}

impl From<SeccompAction> for Violation {
    fn from(action: SeccompAction) -> Self {
        match action {
            SeccompAction::Trap => Self::Trap,
            SeccompAction::Kill => Self::KillProcess,
            SeccompAction::Log => Self::Log,
            SeccompAction::Errno => Self::Errno(libc::EPERM as u16),
        }
    }
}
