//! Limits the number of messages that one place in the code may log.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

/// The length of the time window for which the messages of a place are counted together.
const WINDOW: Duration = Duration::from_secs(5);

/// The number of messages that a place may log in one time window.
const MOST: u64 = 10;

/// The report about messages that were left out repeats an example. This is the maximum number of
/// its characters.
const EXCERPT: usize = 200;

/// The places in the code that have logged. The number of these places is fixed by the code, so a
/// peer cannot make the map grow without limit.
#[derive(Default)]
pub struct Places(Mutex<HashMap<Identifier, Place>>);

/// The decision whether to log a message, and whether to report earlier messages.
#[derive(Debug)]
pub struct Verdict {
    /// The earlier messages of the same place that were left out and have to be reported now.
    pub left_out: Option<LeftOut>,
    /// Whether the message itself is logged.
    pub logged: bool,
}

/// Messages of one place in the code that were not logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The level of the messages.
    pub level: Level,
    count: u64,
    /// The last message that was logged before these messages.
    example: String,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, example, .. } = self;
        let messages = if *count == 1 { "message" } else { "messages" };
        write!(f, "{count} more {messages} like this left out: {example}")
    }
}

impl Places {
    /// Counts a message, and decides whether to log the message. Messages of the levels DEBUG and
    /// TRACE are always logged, because a user who chooses these levels wants all messages.
    pub fn count(&self, event: &Event<'_>, now: Instant) -> Verdict {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO {
            return Verdict {
                left_out: None,
                logged: true,
            };
        }
        let mut places = self.lock();
        let place = places
            .entry(metadata.callsite())
            .or_insert_with(|| Place::new(*metadata.level(), now));
        place.count(now, || excerpt(event))
    }

    /// Takes the messages that were left out and not reported yet, one entry for each place.
    pub fn take_left_out(&self) -> Vec<LeftOut> {
        let mut places = self.lock();
        places
            .values_mut()
            .filter_map(Place::take_left_out)
            .collect()
    }

    /// Locks the map. A poisoned lock is used as well, because a panic cannot leave the map in an
    /// invalid state.
    fn lock(&self) -> MutexGuard<'_, HashMap<Identifier, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the code that logs.
struct Place {
    level: Level,
    /// The time of the first message of the current window.
    start: Instant,
    /// The number of messages since `start`.
    count: u64,
    /// The last message that was logged since `start`.
    example: String,
}

impl Place {
    fn new(level: Level, start: Instant) -> Self {
        Self {
            level,
            start,
            count: 0,
            example: String::new(),
        }
    }

    fn count(&mut self, now: Instant, text: impl FnOnce() -> String) -> Verdict {
        let mut left_out = None;
        if now.duration_since(self.start) >= WINDOW {
            left_out = self.take_left_out();
            (self.start, self.count) = (now, 0);
        }
        self.count += 1;
        if self.count == MOST {
            self.example = text();
        }
        Verdict {
            left_out,
            logged: self.count <= MOST,
        }
    }

    /// Takes the messages of the current window that were left out.
    fn take_left_out(&mut self) -> Option<LeftOut> {
        let count = self.count.checked_sub(MOST).filter(|count| *count > 0)?;
        self.count = MOST;
        Some(LeftOut {
            level: self.level,
            count,
            example: self.example.clone(),
        })
    }
}

/// The first characters of an event's message.
fn excerpt(event: &Event<'_>) -> String {
    struct Message(String);
    impl Visit for Message {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            if field.name() == "message" {
                self.0 = format!("{value:?}");
            }
        }
    }
    let mut message = Message(String::new());
    event.record(&mut message);
    message.0.chars().take(EXCERPT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts `messages` messages at the time `now`. Returns the number of logged messages, and the
    /// reported numbers of messages that were left out.
    fn log(place: &mut Place, now: Instant, messages: u64) -> (u64, Vec<u64>) {
        let (mut logged, mut reported) = (0, Vec::new());
        for _ in 0..messages {
            let verdict = place.count(now, || "a message".to_owned());
            logged += u64::from(verdict.logged);
            reported.extend(verdict.left_out.map(|left_out| left_out.count));
        }
        (logged, reported)
    }

    #[test]
    fn a_place_logs_ten_messages_in_five_seconds_and_counts_the_others() {
        let start = Instant::now();
        let mut place = Place::new(Level::WARN, start);
        assert_eq!(log(&mut place, start, 4), (4, vec![]));
        let late = start + WINDOW - Duration::from_nanos(1);
        assert_eq!(log(&mut place, late, 1000), (6, vec![]));
        assert_eq!(log(&mut place, start + WINDOW, 1000), (10, vec![994]));
        let left_out = place.take_left_out().unwrap();
        assert_eq!(
            left_out.to_string(),
            "990 more messages like this left out: a message"
        );
        assert_eq!(place.take_left_out(), None, "each is reported once");
        assert_eq!(log(&mut place, start + WINDOW, 1), (0, vec![]));
        assert_eq!(place.take_left_out().unwrap().count, 1);
    }

    #[test]
    fn a_place_that_logs_less_reports_nothing() {
        let mut now = Instant::now();
        let mut place = Place::new(Level::INFO, now);
        for _ in 0..100 {
            assert_eq!(log(&mut place, now, 1), (1, vec![]));
            now += WINDOW / 10;
        }
        assert_eq!(place.take_left_out(), None);
    }
}
