//! The jail: what is left to a program once everything that it needs is open.
//!
//! It closes before the first byte of a peer is parsed. Inside there is no file system, network or
//! other process to be seen, there are no capabilities, and system calls are filtered by the policy
//! of the context that the program runs in. Outside waits a supervisor, which passes signals on,
//! removes what has a path, and exits as the program inside does.

mod error;
mod files;
mod namespaces;
mod privileges;
mod supervisor;
mod violation;

use clap::{Args, ValueEnum};
use policies::{Context, Violation};
use vvu::vhost_user::{Outside, SocketPath};

pub use error::JailError;
pub use violation::EXIT_CODE as VIOLATION_EXIT_CODE;

/// What kind of jail there is to be.
#[derive(Args, Clone, Copy, Debug)]
pub struct Options {
    /// How much of a jail to serve in: a process of its own that sees no file system, network or
    /// other process, has no privileges, and makes only the system calls of its policy.
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    pub sandbox: Sandbox,

    /// What a system call that the policy does not allow leads to.
    #[arg(long, value_name = "ACTION", value_enum, default_value_t)]
    pub seccomp_action: SeccompAction,
}

/// How much of a jail there has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Sandbox {
    /// All that this system allows; what it does not is logged.
    #[default]
    Auto,
    /// All of it, or the program does not start.
    Full,
    /// Only the filter of system calls, or the program does not start.
    Seccomp,
    /// No jail.
    None,
}

/// What a system call that the policy does not allow leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SeccompAction {
    /// The program says which call it was, and exits with status 3.
    #[default]
    Trap,
    /// The kernel kills the program with SIGSYS.
    Kill,
    /// The kernel logs the call and makes it: to find out what a policy lacks.
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

/// A part of the jail that can be had or not.
struct Layer {
    name: &'static str,
    enter: fn() -> Result<(), JailError>,
}

/// From outermost to innermost; each takes away what those after it do not need.
const LAYERS: [Layer; 4] = [
    Layer {
        name: "network and IPC namespaces",
        enter: namespaces::leave_system,
    },
    Layer {
        name: "empty root file system",
        enter: files::leave_root,
    },
    Layer {
        name: "Landlock",
        enter: files::forbid_all,
    },
    Layer {
        name: "dropped privileges",
        enter: privileges::drop_all,
    },
];

/// Closes the jail round the process that returns; the one that called stays outside as its
/// supervisor, looks at front-ends' memory for it as `outside`, and ends when that ends, after
/// removing `paths`.
///
/// To be called when everything is open, while there is only one thread, and after
/// [`StopSignal::install`](crate::StopSignal::install).
///
/// # Errors
///
/// [`JailError`] for the part that cannot be had, when all of it is asked for.
pub fn enter(
    options: Options,
    context: Context,
    paths: &[SocketPath],
    outside: Outside,
) -> Result<(), JailError> {
    let sandbox = options.sandbox;
    if sandbox == Sandbox::None {
        return Ok(());
    }
    let layers = if sandbox == Sandbox::Seccomp {
        &[]
    } else {
        &LAYERS[..]
    };
    if !layers.is_empty() {
        accept(sandbox, "process namespace", namespaces::leave_processes())?;
    }
    supervisor::fork(paths, outside)?;
    for layer in layers {
        accept(sandbox, layer.name, (layer.enter)())?;
    }
    accept(
        sandbox,
        "filter of system calls",
        filter(options.seccomp_action, context),
    )
}

fn filter(action: SeccompAction, context: Context) -> Result<(), JailError> {
    if action == SeccompAction::Trap {
        violation::report_in(context)?;
    }
    Ok(policies::install(context, action.into())?)
}

fn accept(sandbox: Sandbox, name: &str, result: Result<(), JailError>) -> Result<(), JailError> {
    match result {
        Err(error) if sandbox == Sandbox::Auto => {
            tracing::warn!("the jail lacks its {name}: {}", crate::one_line(&error));
            Ok(())
        }
        result => result,
    }
}
