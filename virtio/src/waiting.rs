//! How the thread of a queue waits for requests.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::{Interest, SharedEventFd, poll};

use crate::silence::{FirstRequest, NoRequests, Silence};

/// Number of looks at an empty ring in a row after which kicks do not count any more.
const MAX_IN_VAIN: u32 = 64;

/// The time between two looks at a ring whose kicks do not count. It doubles with each look in
/// vain.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// Number of times that the pause doubles. The longest pause costs a thread about a thousandth of a
/// processor.
const MAX_DOUBLINGS: u32 = 5;

/// The next sleep of a queue's thread: the events that end it, apart from the queue's
/// [`Wake`](crate::Wake).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sleep {
    /// Whether a kick ends the sleep. Without this the kick must not be waited for: the driver may
    /// keep it readable without end.
    pub kick: bool,
    /// The maximum length of the sleep. With `None` the length is not limited.
    pub limit: Option<Duration>,
}

impl Sleep {
    /// A sleep that no kick ends, for a thread that would not take requests now.
    pub fn without_kicks(limit: Option<Duration>) -> Self {
        Self { kick: false, limit }
    }

    /// Sleeps in poll(2), and takes the signals that ended the sleep. A signal of `wake` that asks
    /// to stop is not lost, because [`Wake::is_stop_requested`](crate::Wake::is_stop_requested)
    /// keeps the request.
    ///
    /// # Errors
    ///
    /// When the operating system lacks memory.
    pub fn until(self, wake: &SharedEventFd, kick: Option<&SharedEventFd>) -> io::Result<()> {
        let kick = kick.filter(|_| self.kick);
        let interests = [
            Interest::readable(wake),
            kick.map_or(Interest::Nothing, Interest::readable),
        ];
        let ready = poll(interests, self.limit)?;
        for (eventfd, ready) in [Some(wake), kick].into_iter().zip(ready) {
            if let Some(eventfd) = eventfd.filter(|_| ready) {
                // An eventfd that cannot be taken stays readable, like one that is signalled
                // without end.
                let _ = eventfd.take();
            }
        }
        Ok(())
    }
}

/// The things that a queue's thread found to do after a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The ring had requests.
    Requests,
    /// The ring was empty, but requests in flight had ended.
    Results,
    /// There was nothing to do.
    Nothing,
}

/// Plans the sleeps of a queue's thread.
///
/// A driver can make its kick readable without end, for free. So after [`MAX_IN_VAIN`] kicks in a
/// row without a request, the thread does not wait for the kick any more. It looks at the ring
/// after a pause instead. The pauses become longer, until the first request makes kicks count
/// again. A queue without a kick is looked at after such pauses from the beginning.
#[derive(Debug)]
pub(crate) struct Waiting {
    has_kick: bool,
    /// Number of sleeps in a row after which there was nothing to do.
    in_vain: u32,
    /// Whether the thread slept since the last look at the ring.
    slept: bool,
    /// The wait for the driver's first request. `None` if the queue takes no part in it any more.
    silence: Option<Silence>,
}

impl Waiting {
    pub fn new(has_kick: bool, first: Arc<FirstRequest>) -> Self {
        Self {
            has_kick,
            in_vain: 0,
            slept: false,
            silence: has_kick.then(|| Silence::new(first)),
        }
    }

    /// Notes what the thread of this queue found to do.
    pub fn looked(&mut self, queue: u16, found: Found) {
        let slept = std::mem::take(&mut self.slept);
        match found {
            Found::Requests => {
                self.in_vain = 0;
                if let Some(silence) = self.silence.take() {
                    silence.end();
                }
            }
            Found::Nothing if slept => {
                self.in_vain = self.in_vain.saturating_add(1);
                let event = NoRequests { queue };
                let silence = self.silence.take();
                self.silence =
                    silence.and_then(|silence| silence.look_in_vain(event, Instant::now()));
            }
            Found::Nothing | Found::Results => {}
        }
    }

    /// The next sleep of the thread.
    pub fn next_sleep(&mut self) -> Sleep {
        self.slept = true;
        let in_vain = self.in_vain.checked_sub(MAX_IN_VAIN);
        if in_vain.is_none() && self.has_kick {
            let silence = self.silence.as_ref();
            let limit = silence.and_then(|silence| silence.time_left(Instant::now()));
            return Sleep { kick: true, limit };
        }
        let doublings = in_vain.unwrap_or(0).min(MAX_DOUBLINGS);
        Sleep::without_kicks(Some(SHORTEST_PAUSE * (1 << doublings)))
    }
}

#[cfg(test)]
mod tests;
