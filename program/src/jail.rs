//! The jail, which restricts a program after the program has opened all files and sockets that it
//! needs.
//!
//! A program enters the jail before it parses the first byte from a peer. The process in the jail
//! sees no file system, no network and no other process. It has no capabilities, and can make only
//! the system calls that the policy of its context allows. A supervisor process stays outside the
//! jail. The supervisor passes signals on, and removes sockets at the end. It exits with the exit
//! code of the process in the jail.

mod error;
mod files;
mod missing;
mod namespaces;
mod options;
mod privileges;
mod supervisor;
mod violation;

use std::io;

use ipc::SocketPath;
use policies::Context;

pub use error::JailError;
pub use options::{Options, Sandbox, SeccompAction};
pub use violation::EXIT_CODE as VIOLATION_EXIT_CODE;

use missing::Missing;

/// A part of the jail. Some systems do not allow all parts.
struct Layer {
    name: &'static str,
    enter: fn() -> Result<(), JailError>,
}

/// The layers of the jail, in the order in which the process enters them. A layer may take away
/// only rights that later layers do not need.
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

/// A jail that no process has entered yet.
pub struct Jail {
    options: Options,
    paths: Vec<SocketPath>,
}

impl Jail {
    /// A jail with the given options.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            paths: Vec::new(),
        }
    }

    /// Adds sockets that the supervisor removes when the process in the jail has ended.
    pub fn remove_at_end(&mut self, paths: impl IntoIterator<Item = SocketPath>) {
        self.paths.extend(paths);
    }

    /// Starts a process in the jail. This function returns only in the new process. The calling
    /// process stays outside the jail as the supervisor, and exits when the process in the jail has
    /// ended. With [`Sandbox::None`], this function only calls `prepare`.
    ///
    /// `prepare` runs in the new process, before this process replaces its root file system and
    /// drops its privileges. `prepare` must not start threads, because most parts of the jail apply
    /// only to the thread that enters them and to threads that this thread starts later.
    ///
    /// Call this function when all files and sockets are open, while the process has only one
    /// thread, and after [`StopSignal::install`](crate::StopSignal::install).
    ///
    /// # Errors
    ///
    /// [`JailError`] if a required part of the jail fails. With [`Sandbox::Auto`], the failure of
    /// an optional part is no error, but is logged.
    pub fn close(
        self,
        context: Context,
        prepare: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), JailError> {
        let Options {
            sandbox,
            seccomp_action,
        } = self.options;
        if sandbox == Sandbox::None {
            return prepare().map_err(JailError::Prepare);
        }
        let layers = if sandbox == Sandbox::Seccomp {
            &[]
        } else {
            &LAYERS[..]
        };
        let mut missing = Missing::new(sandbox);
        if !layers.is_empty() {
            missing.accept("process namespace", namespaces::leave_processes())?;
        }
        supervisor::fork(&self.paths)?;
        prepare().map_err(JailError::Prepare)?;
        for layer in layers {
            missing.accept(layer.name, (layer.enter)())?;
        }
        // The thread starts inside all layers, because most of them hold only for threads that
        // start later, and before the filter, so that no filter has to allow threads for this.
        ipc::start_watchdog().map_err(JailError::Watchdog)?;
        missing.accept("filter of system calls", filter(seccomp_action, context))?;
        missing.log();
        Ok(())
    }
}

fn filter(action: SeccompAction, context: Context) -> Result<(), JailError> {
    if action == SeccompAction::Trap {
        violation::report_in(context)?;
    }
    policies::install(context, action.into()).map_err(JailError::Filter)
}
