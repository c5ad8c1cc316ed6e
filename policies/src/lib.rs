//! The programs' seccomp filters.
//!
//! Each [`Context`] has a policy, in the folder of each architecture; `README.md` there says how they
//! are named, how they merge, and how to add one. They are compiled when this library is built and
//! embedded, so that nothing is read at run time. [`install`] puts one on all threads of the process.

mod context;
mod kernel;

mod embedded {
    use policy_compiler::Instruction;
    include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
}

pub use context::Context;
pub use kernel::InstallError;
pub use policy_compiler as compiler;

use policy_compiler::{Action, Arch, Instruction, Memory, with_default};

/// What happens to a call that a policy does not mention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The process ends with SIGSYS, and there is nothing that it could do about it.
    KillProcess,
    /// The thread gets SIGSYS: a handler can say which call it was.
    Trap,
    /// The call is made all the same, and the kernel's log says so. Protects from nothing.
    Log,
    /// The call fails with this error number.
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

/// The program of a context for an architecture; a violation ends the process.
pub fn program(arch: Arch, context: Context) -> &'static [Instruction] {
    let programs = match arch {
        Arch::X86_64 => &embedded::X86_64,
        Arch::Aarch64 => &embedded::AARCH64,
        Arch::Arm => &embedded::ARM,
    };
    programs[context as usize]
}

/// The program of a context for the architecture that this was built for, if it has any.
pub fn embedded(context: Context) -> Option<&'static [Instruction]> {
    Some(program(Arch::HOST?, context))
}

/// Limits all threads of this process, and those that they will start, to the calls of a context.
/// Threads give up the right to get new privileges first, and for ever.
///
/// # Errors
///
/// [`InstallError`]; no thread is limited then.
pub fn install(context: Context, violation: Violation) -> Result<(), InstallError> {
    let program = embedded(context).ok_or(InstallError::Architecture)?;
    kernel::install(&with_default(program, violation.into()))
}

/// The policies' text, by path: `x86_64/block.policy`.
pub fn sources() -> Memory {
    let mut memory = Memory::new();
    for (path, text) in embedded::SOURCES {
        memory.add(path, text);
    }
    memory
}
