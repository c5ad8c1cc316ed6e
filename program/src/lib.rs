//! The functions for logging, stop signals, exit codes and the jail, which all programs share.
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
//!     program::run("example", options, None, || Err("nothing to serve".into()))
//! }
//! ```

mod descriptors;
pub mod jail;
mod log;
mod signals;
mod size;
mod sockets;

use std::error::Error;
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipc::{Interest, poll};
use tracing_subscriber::filter::LevelFilter;
use vhost_user::WithCauses;

use descriptors::{STANDARD, close_all_but};
use jail::JailError;
use log::Log;
pub use signals::StopSignal;
pub use size::parse_size;
pub use sockets::SocketOptions;

/// The options of all programs.
#[derive(Args, Clone, Copy, Debug)]
#[group(skip)]
pub struct Options {
    /// The jail in which the program runs.
    #[command(flatten)]
    pub jail: jail::Options,

    /// The level of detail of the log on stderr. Peers cause most messages, so each place in the
    /// code logs at most 10 messages in 5 seconds, and further messages are only counted. Messages
    /// of the levels debug and trace are not limited. If stderr has no room for a line, the line is
    /// lost.
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t)]
    pub log_level: LogLevel,

    /// How long a stop by SIGTERM or SIGINT may take. After half of this time, or at a second
    /// signal, the process that serves is killed. The rest of the time is for the flush of the
    /// image.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub stop_timeout: u16,
}

/// The level of detail of the log on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Only the error with which the program ends.
    Off,
    /// Also failures.
    Error,
    /// Also refused messages, dropped peers, and features that do not work.
    Warn,
    /// Also peers that connect and leave.
    #[default]
    Info,
    /// Also each message of a peer.
    Debug,
    /// Also all other details.
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

/// Prints one line on stdout, which is `ready: ` followed by `name`. The line tells scripts that
/// peers can connect. This function does not wait if the reader of stdout has stopped.
///
/// # Errors
///
/// When stdout cannot be written to, or has no room for the line. Callers may ignore the error,
/// because stdout has room if a script waits for the line.
pub fn announce_ready(name: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let [room] = poll([Interest::writable(&stdout)], Some(Duration::ZERO))?;
    if !room {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    writeln!(stdout, "ready: {name}")?;
    stdout.flush()
}

/// Runs `work` while log messages go to stderr, and returns the exit code of the program. The exit
/// code is 0 after success. After an error it is 1, and one line on stderr shows the error and its
/// sources. If the command-line arguments are wrong, a program ends earlier, with exit code 2.
///
/// A program calls this function before it opens anything. The function closes all descriptors
/// except for the standard streams and `inherited`, the descriptors that the command line names.
pub fn run(
    name: &str,
    options: Options,
    inherited: impl IntoIterator<Item = RawFd>,
    work: impl FnOnce() -> Result<(), Box<dyn Error>>,
) -> ExitCode {
    let log = Log::start(options.log_level.into());
    // SAFETY: the program has opened nothing yet. It knows inherited descriptors only by its
    // command line.
    let closed = unsafe { close_all_but(inherited.into_iter().chain(STANDARD)) };
    let result = closed
        .map_err(|error| CloseError(error).into())
        .and_then(|()| work());
    log.finish();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let advice = advice(error.as_ref());
            log::stderr::write_line(format_args!("{name}: {}{advice}", one_line(error.as_ref())));
            ExitCode::FAILURE
        }
    }
}

/// Unneeded inherited descriptors cannot be closed, so the program does not begin its work.
#[derive(Debug, thiserror::Error)]
#[error("cannot close inherited file descriptors (see close_range(2), which needs Linux 5.9)")]
struct CloseError(#[source] io::Error);

/// The advice that the program shows after the text of an error. Empty if there is no advice.
fn advice(error: &(dyn Error + 'static)) -> String {
    let Some(error) = error.downcast_ref::<JailError>() else {
        return String::new();
    };
    let needed = error
        .advice()
        .map_or_else(String::new, |advice| format!("; {advice}"));
    let way_out = match error {
        error if error.is_optional() => {
            "; with --sandbox=auto the program runs without this part of the jail"
        }
        JailError::Privileges(_) | JailError::Handler(_) | JailError::Filter(_) => {
            "; with --sandbox=none the program runs without a jail"
        }
        _ => "",
    };
    format!("{needed}{way_out}")
}

/// An error and its sources as one line for a terminal, for instance "outer: inner: innermost".
pub fn one_line(error: &(dyn Error + 'static)) -> String {
    log::printable(&WithCauses(error).to_string().replace('\n', " "))
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
