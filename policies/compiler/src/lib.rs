//! Compiles seccomp policies in Minijail's syntax to classic BPF.
//!
//! The way of a policy:
//!
//! 1. [`Source`]: where files come from, a folder or memory;
//! 2. [`load`]: reads a policy and what it includes, and parses each file once;
//! 3. [`Policy::merge`]: what all statements say together on one architecture;
//! 4. [`compile`]: the program for the kernel.
//!
//! # Merging
//!
//! A statement decides some uses of a call: the first of its filters whose condition holds says
//! what happens, and where none holds it decides nothing. A policy is the *set* of its statements
//! and those of all files it includes, however deep and in whatever order:
//!
//! * a use that one statement decides, or several in the same way, gets that action: conditions of
//!   several files are alternatives, and an unconditional allow absorbs conditional ones;
//! * two statements that may decide the same use in different ways are an error that names both;
//! * a use that no statement decides gets the default action.
//!
//! None of that depends on an order, so the result does not either. Only inside one statement,
//! `call: {filter, filter}`, does order matter, as it is written there for all to see.
//!
//! # Errors
//!
//! Whatever is wrong is a [`Diagnostic`] with file, line, column, the chain of includes and what was
//! expected. There is no input for which the result allows more than the policy says.

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
pub use bpf::{Instruction, MAX_INSTRUCTIONS, compile, with_default};
pub use diagnostic::{Diagnostic, Location, Place};
pub use evaluate::{Decision, decide};
pub use load::{Loaded, Options, load};
pub use merge::{Call, Chain, Note, Policy};
pub use overlap::may_overlap;
pub use rule::{Action, Atom, Clause, Op, Rule};
pub use source::{Folder, Memory, Source};
pub use tables::{call_name, call_number, constant, constants_with_value};
