//! The jail: what is left to a program once everything that it needs is open.
//!
//! It closes before the first byte of a peer is parsed. The process inside sees no file system, no
//! network and no other process. It has no capabilities, and makes only the system calls that the
//! policy of its context allows. A supervisor stays outside. It passes signals on, answers what the
//! process inside cannot see, removes sockets at the end, and exits as the process inside does.

mod error;
mod files;
mod inspection;
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
pub use inspection::{Inspector, Outside, PrivateMemory};
pub use options::{Options, Sandbox, SeccompAction};
pub use violation::EXIT_CODE as VIOLATION_EXIT_CODE;

use inspection::inspection;
use missing::Missing;

/// A part of the jail that a system may refuse.
struct Layer {
    name: &'static str,
    enter: fn() -> Result<(), JailError>,
}

/// The layers that the process inside enters, from the outermost to the innermost. Each takes away
/// what those after it do not need.
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

/// A jail that is still open.
pub struct Jail {
    options: Options,
    paths: Vec<SocketPath>,
    outside: Option<Outside>,
}

impl Jail {
    /// A jail of this kind.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            paths: Vec::new(),
            outside: None,
        }
    }

    /// Looks at front-ends' memory for the process inside, by asking the supervisor.
    ///
    /// # Errors
    ///
    /// When the operating system is out of file descriptors.
    pub fn inspector(&mut self) -> Result<Inspector, JailError> {
        let (inspector, outside) = inspection().map_err(JailError::Inspector)?;
        self.outside = Some(outside);
        Ok(inspector)
    }

    /// Has the supervisor remove these sockets when the process inside has ended.
    pub fn remove_at_end(&mut self, paths: impl IntoIterator<Item = SocketPath>) {
        self.paths.extend(paths);
    }

    /// Closes the jail round the process that returns. The process that called stays outside as the
    /// supervisor, and exits when the process inside has ended.
    ///
    /// `prepare` runs in the process that will serve, with all privileges that the program was
    /// started with. It must not start threads, because most parts of the jail hold only for the
    /// thread that enters them and for those that it starts later.
    ///
    /// To be called when everything is open, while there is only one thread, and after
    /// [`StopSignal::install`](crate::StopSignal::install).
    ///
    /// # Errors
    ///
    /// [`JailError`] for what has to be there. With [`Sandbox::Auto`], a part of the jail that this
    /// system does not allow is logged instead.
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
        supervisor::fork(&self.paths, self.outside)?;
        prepare().map_err(JailError::Prepare)?;
        for layer in layers {
            missing.accept(layer.name, (layer.enter)())?;
        }
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
