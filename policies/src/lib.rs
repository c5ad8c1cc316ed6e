//! The seccomp filters of this project's programs.
//!
//! Each [`Context`] has a policy in the folder of each architecture. The build compiles the
//! policies and embeds them, so that nothing is read at run time. `README.md` describes the names
//! of policies, the merging of policies, and the steps to add a policy. [`install`] puts a filter
//! on all threads of the process:
//!
//! ```no_run
//! use policies::{Context, DeviceName, TransportName, Violation, install};
//!
//! let context = Context::Device(DeviceName::Block, TransportName::VhostUser);
//! install(context, Violation::KillProcess)?;
//! // From here on, this process makes only the calls that block_device_vhost_user.policy allows.
//! # Ok::<(), policies::InstallError>(())
//! ```

mod context;
mod kernel;

mod embedded {
    use policy_compiler::{Arch, Instruction};

    use crate::{Context, DeviceName, TransportName};

    include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
}

pub use context::{Context, DeviceName, ImageFormat, TransportName, policy_names};
pub use kernel::InstallError;
pub use policy_compiler as compiler;

use policy_compiler::{Action, Arch, Instruction, Memory, with_default};

/// The action for a system call that a policy does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The kernel ends the process with SIGSYS, which no handler can catch.
    KillProcess,
    /// The thread gets SIGSYS. A handler for SIGSYS can report the system call.
    Trap,
    /// The kernel makes the system call and logs it, so the filter does not protect anything.
    Log,
    /// The system call fails with this error number.
    Errno(u16),
}

impl From<Violation> for Action {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::KillProcess => Self::KillProcess,
            Violation::Trap => Self::Trap,
            Violation::Log => Self::Log,
            Violation::Errno(number) => Self::Errno(number),
        }
    }
}

/// The seccomp program of a context for an architecture. A system call that the policy does not
/// name ends the process.
pub fn program(arch: Arch, context: Context) -> &'static [Instruction] {
    embedded::program(arch, context)
}

/// Limits all threads of this process to the system calls of a context. Threads that start later
/// have the same limit.
///
/// The function sets no_new_privs first. Neither the filter nor no_new_privs can be removed.
///
/// # Errors
///
/// [`InstallError`]. After an error, no thread has the filter, but no_new_privs may be set.
pub fn install(context: Context, violation: Violation) -> Result<(), InstallError> {
    let arch = Arch::HOST.ok_or(InstallError::Architecture)?;
    kernel::install(&with_default(program(arch, context), violation.into()))
}

/// The texts of all policies, with paths such as `x86_64/block.policy`.
pub fn sources() -> Memory {
    let mut memory = Memory::new();
    for (path, text) in embedded::SOURCES {
        memory.add(path, text);
    }
    memory
}
