//! How the thread of a queue waits for requests.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::{Interest, SharedEventFd, poll};

use crate::silence::{FirstRequest, NoRequests, Silence};

/// If this number of sleeps in a row found nothing to do, the thread ignores kicks.
const MAX_IN_VAIN: u32 = 64;

/// The shortest pause between two looks at the ring while kicks are ignored. The pause doubles
/// after each look that finds nothing to do.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// Number of times that the pause doubles. With the longest pause, the looks take about a
/// thousandth of a processor's time.
const MAX_DOUBLINGS: u32 = 5;

/// The events that end the next sleep of a queue's thread, in addition to the queue's
/// [`Wake`](crate::Wake).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sleep {
    /// Whether a kick ends the sleep. If false, the thread must not wait for the kick eventfd,
    /// because the driver may keep it readable forever.
    pub kick: bool,
    /// The maximum length of the sleep. With `None` the length is not limited.
    pub limit: Option<Duration>,
}

impl Sleep {
    /// A sleep that a kick does not end, for example because the thread cannot take requests now.
    pub fn without_kicks(limit: Option<Duration>) -> Self {
        Self { kick: false, limit }
    }

    /// Sleeps in poll(2), and then takes the signals of the eventfds that ended the sleep. If
    /// `wake` was signalled to request a stop,
    /// [`Wake::is_stop_requested`](crate::Wake::is_stop_requested) still reports this request.
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
                // An error is ignored. The eventfd then stays readable, like an eventfd that a peer
                // signals all the time.
                let _ = eventfd.take();
            }
        }
        Ok(())
    }
}

/// What a queue's thread found to do after a sleep.
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
/// A driver can keep its kick eventfd readable forever, at no cost. So after [`MAX_IN_VAIN`] sleeps
/// in a row that found nothing to do, the thread ignores kicks. Instead, it looks at the ring after
/// pauses, which become longer. After the next request, the thread waits for kicks again. If a
/// queue has no kick eventfd, the thread always uses pauses.
#[derive(Debug)]
pub(crate) struct Waiting {
    has_kick: bool,
    /// Number of sleeps in a row after which there was nothing to do.
    in_vain: u32,
    /// Whether the thread slept since the last look at the ring.
    slept: bool,
    /// The state of the wait for the driver's first request. `None` if this queue does not wait for
    /// it.
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

    /// Records what the thread of this queue found to do.
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
