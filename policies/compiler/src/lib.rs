//! Compiles seccomp policies in Minijail's syntax to classic BPF.
//!
//! A policy becomes a program in three steps:
//!
//! 1. [`load`] reads a policy and its includes from a [`Source`], and parses each file once.
//! 2. [`Policy::merge`] combines all statements for one architecture.
//! 3. [`compile`] makes the program for the kernel.
//!
//! In this crate, a *call* is a system call.
//!
//! # Merging
//!
//! A *use* of a call is the call with certain arguments. A statement consists of filters. The first
//! filter whose condition holds for a use sets the action, and the statement *decides* the use. If
//! no condition holds, the statement does not decide the use. A policy is the *set* of its
//! statements and of the statements in all files that it includes, at any depth and in any order:
//!
//! * If one or more statements decide a use with the same action, the use gets that action. So
//!   conditions in several files are alternatives, and an unconditional allow makes conditional
//!   allows of the same call redundant.
//! * Two statements that may decide the same use with different actions are an error. The message
//!   names both statements.
//! * A use that no statement decides gets the default action.
//!
//! The result does not depend on the order of statements or includes. Order matters only inside one
//! statement, `call: {filter, filter}`, where the reader sees all filters at once.
//!
//! # Errors
//!
//! Every error is a [`Diagnostic`] with file, line, column, the chain of includes and advice. For
//! any input, the result never allows more than the policy says.
//!
//! # Example
//!
//! ```
//! use std::path::Path;
//! use policy_compiler::{Action, Arch, Memory, Options, Policy};
//! use policy_compiler::{call_number, compile, constant, decide, load};
//!
//! let mut files = Memory::new();
//! files.add("common.policy", "{read, write}: 1\n");
//! files.add("daemon.policy", "@include ./common.policy\nioctl: arg1 == FIONBIO\n");
//!
//! let loaded = load(&files, Path::new("daemon.policy"), &Options::default())?;
//! let policy = Policy::merge(&loaded, Arch::X86_64)?;
//! let program = compile(&policy)?;
//! assert!(program.len() < 30);
//!
//! let ioctl = call_number(Arch::X86_64, "ioctl").expect("x86_64 has it");
//! let request = constant(Arch::X86_64, "FIONBIO").expect("x86_64 has it");
//! let decided = decide(&policy, ioctl, &[3, request, 0, 0, 0, 0]);
//! assert_eq!(decided.action, Action::Allow);
//! let decided = decide(&policy, ioctl, &[3, request + 1, 0, 0, 0, 0]);
//! assert_eq!(decided.action, Action::KillProcess);
//! # Ok::<(), policy_compiler::Diagnostic>(())
//! ```

mod arch;
mod ast;
mod bpf;
mod diagnostic;
mod evaluate;
#[cfg(any(test, feature = "test-utils"))]
pub mod fuzzing;
#[cfg(any(test, feature = "test-utils"))]
pub mod interpreter;
mod lexer;
mod load;
mod lower;
mod merge;
mod overlap;
mod parser;
mod rule;
mod source;
mod suggest;
mod tables;

pub use arch::Arch;
pub use bpf::{Instruction, compile, with_default};
pub use diagnostic::{Diagnostic, Location, Position};
pub use evaluate::{Decision, decide};
pub use load::{Loaded, Options, load};
pub use merge::{CallRules, Note, Policy, RuleChain};
pub use overlap::may_overlap;
pub use rule::{Action, Atom, Clause, Op, Rule};
pub use source::{Folder, Memory, Source};
pub use tables::{call_name, call_number, constant, constants_with_value};

/// The maximum number of instructions in a BPF program: `BPF_MAXINSNS` of linux/bpf_common.h.
pub const MAX_INSTRUCTIONS: usize = 4096;
