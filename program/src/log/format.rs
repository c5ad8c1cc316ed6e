//! Turns log messages into lines of text.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Writer, format};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::places::{LeftOut, Places};
use super::printable;

/// Formats each log message as one line. Leaves out a message if its place in the code has already
/// logged too many messages.
///
/// The format applies the limit, because a filter could not log that it has left messages out:
/// tracing ignores messages that a filter logs.
pub struct Limited {
    places: Arc<Places>,
    format: Format<Full, SystemTime>,
}

impl Limited {
    /// A format that counts messages in `places`, and leaves out messages beyond the limit.
    pub fn new(places: Arc<Places>) -> Self {
        let format = format().with_target(false);
        Self { places, format }
    }
}

impl<S, N> FormatEvent<S, N> for Limited
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let verdict = self.places.count(event, Instant::now());
        if let Some(left_out) = verdict.left_out {
            writeln!(writer, "{}", line(&left_out))?;
        }
        if verdict.logged {
            let mut line = String::new();
            self.format
                .format_event(context, Writer::new(&mut line), event)?;
            writeln!(writer, "{}", printable(line.trim_end_matches('\n')))?;
        }
        Ok(())
    }
}

/// The line that reports messages that were left out. It has the form of a log message.
pub fn line(left_out: &LeftOut) -> String {
    let mut time = String::new();
    // If the clock cannot be read, the time stays empty.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    let text = printable(&left_out.to_string());
    format!("{time} {:>5} {text}", left_out.level.as_str())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use super::*;

    /// Calls `log`, and returns the lines that were logged.
    fn logged(log: impl FnOnce()) -> Vec<String> {
        #[derive(Clone, Default)]
        struct Memory(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Memory {
            fn write(&mut self, text: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(text)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (memory, places) = (Memory::default(), Arc::new(Places::default()));
        let writer = memory.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(Limited::new(places.clone()))
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        let left_out = places.take_left_out();
        let lines = text.lines().map(str::to_owned);
        lines.chain(left_out.iter().map(line)).collect()
    }

    #[test]
    fn a_place_that_logs_a_thousand_messages_gives_ten_lines_and_one_count() {
        let lines = logged(|| {
            for number in 1..=1000 {
                tracing::warn!("message {number}");
            }
            tracing::info!("another place");
        });
        assert_eq!(lines.len(), 12, "{lines:?}");
        assert!(lines[9].ends_with("  WARN message 10"), "{}", lines[9]);
        assert!(lines[10].ends_with("  INFO another place"), "{}", lines[10]);
        let count = "  WARN 990 more messages like this left out: message 10";
        assert!(lines[11].ends_with(count), "{}", lines[11]);
    }

    #[test]
    fn a_message_is_one_line_without_control_characters() {
        let lines = logged(|| tracing::error!("no disk \"{}\"", "\x1b[2J\nready: \u{202e}"));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(!lines[0].contains(char::is_control), "{lines:?}");
        assert!(lines[0].contains("[2J\\nready: \\u{202e}\""), "{lines:?}");
    }
}
