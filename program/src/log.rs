//! The log on stderr.
//!
//! Peers cause most messages, and must not fill the log. So each place in the code logs at most 10
//! messages in 5 seconds, and further messages are only counted ([`places`]). The reader of stderr
//! may be slow or stopped, and must not stop this program. So a line is dropped and counted if
//! stderr has no room for it ([`stderr`]). Each message is one line without control characters,
//! because parts of the message may come from a peer.

mod format;
mod places;
pub mod stderr;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io;
use std::panic::{self, PanicHookInfo};
use std::sync::Arc;
use std::thread;

use tracing_subscriber::filter::LevelFilter;

use format::Limited;
use places::Places;

/// The log of this process.
pub struct Log(Arc<Places>);

impl Log {
    /// Starts the log. It shows the messages up to this level, and the messages of panics.
    pub fn start(level: LevelFilter) -> Self {
        stderr::own_terminal();
        let places = Arc::new(Places::default());
        tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .event_format(Limited::new(places.clone()))
            .with_writer(|| Lines)
            .init();
        panic::set_hook(Box::new(log_panic));
        Self(places)
    }

    /// Logs the numbers of messages that were left out and not reported yet.
    pub fn finish(&self) {
        for left_out in self.0.take_left_out() {
            stderr::write_line(format_args!("{}", format::line(&left_out)));
        }
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    let panic = panic.to_string().replace('\n', " ");
    tracing::error!("thread {name} {panic}");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        stderr::write_line(format_args!("{backtrace}"));
    }
}

/// A writer that writes the text of messages, newlines included, to stderr.
struct Lines;

impl io::Write for Lines {
    /// Always succeeds. A line is dropped if stderr has no room for it. The caller gets no error,
    /// because it could do nothing about it.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let lines = String::from_utf8_lossy(text);
        stderr::write_line(format_args!("{}", lines.trim_end_matches('\n')));
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The text as one line for a terminal. Control characters and invisible characters are escaped.
pub fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\'' | '"' | '\\' => line.push(character),
            character => line.extend(character.escape_debug()),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_other_text_stays() {
        let plain = "disk \"ä\" of 'x' at C:\\é, 磁盘";
        assert_eq!(printable(plain), plain);
        let hostile = "a\x1b[2Jb\r\n\t\u{9b}31m\u{202e}\x07";
        let expected = "a\\u{1b}[2Jb\\r\\n\\t\\u{9b}31m\\u{202e}\\u{7}";
        assert_eq!(printable(hostile), expected);
    }
}
