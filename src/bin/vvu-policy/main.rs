//! `vvu-policy`: checks, explains and compiles seccomp policies.

mod args;
mod check;
mod compile;
mod diff;
mod lint;
mod names;
mod show;
mod trace;
mod tree;

#[cfg(test)]
#[path = "../../tests/man.rs"]
mod man;

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use policies::compiler::Diagnostic;

use args::{Arguments, Command};
use tree::Tree;

/// Why a command could not do what it was asked to.
#[derive(Debug)]
enum Failure {
    /// A policy is wrong.
    Policy(Diagnostic),
    /// Anything else.
    Other(String),
}

/// Whether all is well; false: something was found that there should not be.
type Outcome = Result<bool, Failure>;

impl From<Diagnostic> for Failure {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::Policy(diagnostic)
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Other(message)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Other(error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(diagnostic) => write!(f, "error: {diagnostic}"),
            Self::Other(message) => write!(f, "vvu-policy: {message}"),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = io::BufWriter::new(io::stdout());
    let outcome = run(&arguments, &mut out);
    match outcome.and_then(|fine| Ok(out.flush().map(|()| fine)?)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(match failure {
                Failure::Policy(_) => 1,
                Failure::Other(_) => 2,
            })
        }
    }
}

fn run(arguments: &Arguments, out: &mut dyn Write) -> Outcome {
    if let Command::Compile {
        file,
        arch,
        format,
        output,
        default_action,
        denylist,
    } = &arguments.command
    {
        let job = compile::Job {
            file,
            format: *format,
            output: output.as_deref(),
            default_action: default_action.map(Into::into),
            denylist: *denylist,
        };
        return compile::run(&arguments.tree, &job, arch.get()?, out);
    }
    let tree = Tree::open(&arguments.tree)?;
    match &arguments.command {
        Command::Check { arch, notes } => check::run(&tree, &arch.arch, *notes, out),
        Command::Show { context, arch } => show::show(&tree, context, arch.get()?, out),
        Command::Explain {
            context,
            call,
            values,
            arch,
        } => show::explain(&tree, context, (call, values), arch.get()?, out),
        Command::Diff {
            first,
            second,
            arch,
        } => diff::run(&tree, [first, second], arch.get()?, out),
        Command::Lint { arch } => lint::run(&tree, &arch.arch, out),
        Command::Trace {
            context,
            from_output,
            command,
        } => trace::run(&tree, context, from_output.as_deref(), command, out),
        Command::Compile { .. } => Ok(true),
    }
}
