//! What the programs do around their work: logging, stop signals, exit codes, and the jail.
//!
//! ```no_run
//! use std::process::ExitCode;
//! use clap::Parser;
//!
//! #[derive(Parser)]
//! struct Arguments {
//!     #[command(flatten)]
//!     program: program::Options,
//! }
//!
//! fn main() -> ExitCode {
//!     let options = Arguments::parse().program;
//!     program::run("example", options, || Err("nothing to serve".into()))
//! }
//! ```

pub mod jail;
mod signals;
mod size;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use tracing_subscriber::filter::LevelFilter;
use vhost_user::WithCauses;

use jail::JailError;
pub use signals::StopSignal;
pub use size::parse_size;

/// The options of all programs.
#[derive(Args, Clone, Copy, Debug)]
#[group(skip)]
pub struct Options {
    /// The jail to serve in.
    #[command(flatten)]
    pub jail: jail::Options,

    /// How much to log on stderr.
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t)]
    pub log_level: LogLevel,
}

/// How much a program logs on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Only the error that ends the program.
    Off,
    /// Failures.
    Error,
    /// Also refused messages, dropped peers, and features that do not work.
    Warn,
    /// Also peers that connect and leave.
    #[default]
    Info,
    /// Also every message.
    Debug,
    /// Everything.
    Trace,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::OFF,
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// Prints one line on stdout that begins with `ready: `. Scripts wait for it: from now on, peers
/// can connect.
///
/// # Errors
///
/// When stdout cannot be written to. Callers may ignore that, because then nobody waits for the
/// line.
pub fn announce_ready(name: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "ready: {name}")?;
    stdout.flush()
}

/// Runs a program, with its log lines on stderr. Returns its exit code: 0 after success, else 1 and
/// one line on stderr with the error and its sources. (Wrong usage ends a program with 2 before
/// this.)
pub fn run(
    name: &str,
    options: Options,
    work: impl FnOnce() -> Result<(), Box<dyn Error>>,
) -> ExitCode {
    start_logging(options.log_level);
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let advice = advice(error.as_ref());
            eprintln!("{name}: {}{advice}", one_line(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn start_logging(level: LogLevel) {
    let format = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false);
    format
        .with_target(false)
        .with_max_level(LevelFilter::from(level))
        .init();
}

/// What to do about an error, behind its text.
fn advice(error: &(dyn Error + 'static)) -> String {
    let Some(error) = error.downcast_ref::<JailError>() else {
        return String::new();
    };
    let needed = error
        .advice()
        .map_or_else(String::new, |advice| format!("; {advice}"));
    if error.is_optional() {
        format!("{needed}; with --sandbox=auto the jail does without")
    } else {
        needed
    }
}

/// An error and its sources as one line: "outer: inner: innermost".
pub fn one_line(error: &(dyn Error + 'static)) -> String {
    WithCauses(error).to_string().replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("cannot read the disk")]
        Plain(#[source] io::Error),
        #[error("cannot read the disk ({0})")]
        Repeating(#[source] io::Error),
    }

    #[test]
    fn an_error_is_one_line_with_each_source_once() {
        let inner = || io::Error::other("bad\nsector");
        let expected = "cannot read the disk: bad sector";
        assert_eq!(one_line(&Outer::Plain(inner())), expected);
        let expected = "cannot read the disk (bad sector)";
        assert_eq!(one_line(&Outer::Repeating(inner())), expected);
    }
}
