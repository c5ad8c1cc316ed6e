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

use clap::ValueEnum;
use vvu::vhost_user::{Outside, SocketPath};

pub use error::JailError;

/// How much of a jail there has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Sandbox {
    /// All that this system allows; what it does not is logged.
    #[default]
    Auto,
    /// All of it, or the program does not start.
    Full,
    /// No jail.
    None,
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
pub fn enter(sandbox: Sandbox, paths: &[SocketPath], outside: Outside) -> Result<(), JailError> {
    if sandbox == Sandbox::None {
        return Ok(());
    }
    accept(sandbox, "process namespace", namespaces::leave_processes())?;
    supervisor::fork(paths, outside)?;
    for layer in LAYERS {
        accept(sandbox, layer.name, (layer.enter)())?;
    }
    Ok(())
}

fn accept(sandbox: Sandbox, name: &str, result: Result<(), JailError>) -> Result<(), JailError> {
    match result {
        Err(error) if sandbox == Sandbox::Auto => {
            tracing::warn!("the jail lacks its {name}: {error}");
            Ok(())
        }
        result => result,
    }
}
