//! What the programs have in common: how they log, how they are told to stop, how they end.

pub mod jail;
mod signals;
mod size;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::ValueEnum;
use tracing_subscriber::filter::LevelFilter;

pub use signals::StopSignal;
pub use size::parse_size;

/// How much a program says on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Nothing but the error that ends the program.
    Off,
    /// What it cannot serve.
    Error,
    /// What it refuses, and whom it drops.
    Warn,
    /// Also who comes and goes.
    #[default]
    Info,
    /// Also every message.
    Debug,
    /// Also every access.
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

/// Sends what is logged to stderr from now on.
pub fn start_logging(level: LogLevel) {
    let format = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false);
    format
        .with_target(false)
        .with_max_level(LevelFilter::from(level))
        .init();
}

/// Says on stdout, for scripts to wait for, that the program serves now: one line that begins with
/// `ready: `.
///
/// # Errors
///
/// When stdout takes no more; nobody waits then, so that this may be ignored.
pub fn announce_ready(what: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "ready: {what}")?;
    stdout.flush()
}

/// Ends a program: 0 after success, else one line on stderr and 1. (Usage errors exit with 2
/// before anything else happens.)
pub fn exit_code(program: &str, result: Result<(), Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {}", one_line(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// An error and its sources in one line. A source that the text before it repeats is left out.
fn one_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot{what}")]
    struct Failure {
        what: &'static str,
        source: io::Error,
    }

    #[test]
    fn an_error_is_one_line_with_each_source_once() {
        let line = |what| {
            let source = io::Error::other("no\nroom");
            one_line(&Failure { what, source })
        };
        assert_eq!(line(""), "cannot: no room");
        assert_eq!(line(" write: no\nroom"), "cannot write: no room");
    }
}
