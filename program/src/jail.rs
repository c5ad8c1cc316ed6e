//! The jail, which restricts a program after the program has opened all files and sockets that it
//! needs.
//!
//! A program enters the jail before it parses the first byte from a peer. The process in the jail
//! sees no file system, no network and no other process. It has no capabilities, and can make only
//! the system calls that the policy of its context allows. A supervisor process stays outside the
//! jail. The supervisor passes signals on, and kills the process in the jail if it does not stop in
//! time. It removes sockets at the end, flushes the image if the process in the jail did not, and
//! exits with the exit code of the process in the jail.

mod error;
mod files;
mod missing;
mod namespaces;
mod options;
mod privileges;
mod supervisor;
mod violation;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use ipc::SocketPath;
use policies::Context;

pub use error::JailError;
pub use options::{Options, Sandbox, SeccompAction};
pub use supervisor::KILLED_EXIT_CODE;
pub use violation::EXIT_CODE as VIOLATION_EXIT_CODE;

use missing::Missing;
use supervisor::Duties;

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
    duties: Duties,
}

impl Jail {
    /// A jail with the options of the program.
    pub fn new(options: crate::Options) -> Self {
        let duties = Duties {
            sockets: Vec::new(),
            files: Vec::new(),
            stop_timeout: Duration::from_secs(options.stop_timeout.into()),
        };
        let options = options.jail;
        Self { options, duties }
    }

    /// Adds sockets that the supervisor removes when the process in the jail has ended.
    pub fn remove_at_end(&mut self, sockets: impl IntoIterator<Item = SocketPath>) {
        self.duties.sockets.extend(sockets);
    }

    /// Adds files. If the process in the jail is killed or ends with an error, the supervisor
    /// flushes the files to stable storage. If the process in the jail ends with success, it has to
    /// flush the files itself before.
    pub fn sync_at_end(&mut self, files: impl IntoIterator<Item = OwnedFd>) {
        self.duties.files.extend(files);
    }

    /// Starts a process in the jail. This function returns only in the new process. The calling
    /// process stays outside the jail as the supervisor, and exits when the process in the jail has
    /// ended. With [`Sandbox::None`], there are the same two processes, but no restrictions.
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
        let Self { options, duties } = self;
        let sandbox = options.sandbox;
        let layers = match sandbox {
            Sandbox::Auto | Sandbox::Full => &LAYERS[..],
            Sandbox::Seccomp | Sandbox::None => &[],
        };
        let mut missing = Missing::new(sandbox);
        let leave = || match layers {
            [] => Ok(()),
            _ => missing.accept("process namespace", namespaces::leave_processes()),
        };
        supervisor::fork(&duties, leave, || confine_supervisor(options, &duties))?;
        drop(duties);
        prepare().map_err(JailError::Prepare)?;
        for layer in layers {
            missing.accept(layer.name, (layer.enter)())?;
        }
        // The thread starts after all layers, because most of them apply only to threads that start
        // later. It starts before the filter, so that no filter has to allow the start of threads.
        ipc::start_watchdog().map_err(JailError::Watchdog)?;
        filter(options, context)?;
        missing.log();
        Ok(())
    }
}

/// Takes away from the supervisor the capabilities and system calls that its duties do not need.
fn confine_supervisor(options: Options, duties: &Duties) -> Result<(), JailError> {
    if matches!(options.sandbox, Sandbox::Auto | Sandbox::Full) {
        // The process in the jail reports a kernel without Landlock.
        let folders = duties.sockets.iter().map(SocketPath::folder);
        Missing::new(options.sandbox).accept("Landlock", files::forbid_all_but_removal(folders))?;
        let removes = !duties.sockets.is_empty();
        privileges::drop_all_but(removes.then_some(privileges::TO_REMOVE_FILES))?;
    }
    filter(options, Context::Supervisor)
}

/// Filters system calls, except with [`Sandbox::None`].
fn filter(options: Options, context: Context) -> Result<(), JailError> {
    if options.sandbox == Sandbox::None {
        return Ok(());
    }
    if options.seccomp_action == SeccompAction::Trap {
        violation::report_in(context)?;
    }
    policies::install(context, options.seccomp_action.into()).map_err(JailError::Filter)
}
