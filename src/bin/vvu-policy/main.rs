//! The program `vvu-policy`, which checks, explains and compiles seccomp policies.

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
use tree::PolicyTree;

/// The result of a subcommand that finished.
#[derive(Clone, Copy, Debug)]
enum Verdict {
    /// Nothing is wrong.
    Fine,
    /// The subcommand printed errors, differences or proposals.
    Findings,
}

/// The reason why a subcommand did not finish.
#[derive(Debug)]
enum CommandError {
    /// A policy has an error.
    Policy(Diagnostic),
    /// The usage is wrong, or a file cannot be read or written.
    Other(String),
}

type CommandResult = Result<Verdict, CommandError>;

impl From<Diagnostic> for CommandError {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::Policy(diagnostic)
    }
}

impl From<String> for CommandError {
    fn from(message: String) -> Self {
        Self::Other(message)
    }
}

impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        Self::Other(error.to_string())
    }
}

impl fmt::Display for CommandError {
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
    let result = run(&arguments, &mut out);
    match result.and_then(|verdict| Ok(out.flush().map(|()| verdict)?)) {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::Findings) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(match error {
                CommandError::Policy(_) => 1,
                CommandError::Other(_) => 2,
            })
        }
    }
}

fn run(arguments: &Arguments, out: &mut dyn Write) -> CommandResult {
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
    let tree = PolicyTree::open(&arguments.tree)?;
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
        Command::Compile { .. } => Ok(Verdict::Fine),
    }
}
