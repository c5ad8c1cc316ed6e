//! Stops the process inside in a limited time.

use std::io;
use std::time::{Duration, Instant};

use ipc::{Interest, poll};
use rustix::process::{Signal, pidfd_send_signal};

use super::birth::Child;
use crate::StopSignal;

/// How the process inside has ended.
#[derive(Debug)]
pub enum End {
    /// It ended by itself, with this exit code.
    Exited(i32),
    /// It was killed, because it did not stop in time or a second signal came. It may still be
    /// running, if it waits for storage. The supervisor has to end by `deadline`.
    Killed { deadline: Instant },
}

/// The time in which further signals count as the first one. timeout(1), for instance, sends a
/// signal to a program and at once to its whole process group.
const ECHO: Duration = Duration::from_millis(500);

/// A stop that has begun.
#[derive(Clone, Copy)]
struct Stop {
    began: Instant,
    timeout: Duration,
}

impl Stop {
    /// The time when the process inside is killed.
    fn kill(self) -> Instant {
        self.began + self.timeout / 2
    }

    /// The time when the supervisor ends.
    fn deadline(self) -> Instant {
        self.began + self.timeout
    }

    /// The reason to kill the process inside now. `asked`: whether a signal has come.
    fn reason_to_kill(self, asked: bool, now: Instant) -> Option<String> {
        if now >= self.kill() {
            let waited = (self.timeout / 2).as_secs_f32();
            return Some(format!("the program did not stop in {waited} s"));
        }
        let again = asked && now - self.began >= ECHO;
        again.then(|| "a second signal came for the program".to_owned())
    }
}

/// Waits for the end of the process inside, and passes stop signals on.
///
/// The first signal begins a stop, which may take the time `timeout`. In the first half of this
/// time, the process inside completes the requests in flight and flushes the image. After this
/// half, or at a second signal, it is killed. The rest of the time is for the supervisor.
pub fn wait(child: &Child, signals: &StopSignal, timeout: Duration) -> io::Result<End> {
    let mut stop: Option<Stop> = None;
    loop {
        let patience = stop.map(|stop| stop.kill().saturating_duration_since(Instant::now()));
        let interests = [
            Interest::readable(child.process()),
            Interest::readable(signals),
        ];
        let [ended, _] = poll(interests, patience)?;
        if ended {
            return child.exit_code().map(End::Exited);
        }
        let asked = signals.take()?;
        let now = Instant::now();
        match stop {
            None if asked => {
                send(child, Signal::TERM);
                stop = Some(Stop {
                    began: now,
                    timeout,
                });
            }
            None => {}
            Some(stop) => {
                if let Some(reason) = stop.reason_to_kill(asked, now) {
                    tracing::error!("{reason}, so it is killed");
                    return kill_until(child, stop.deadline());
                }
            }
        }
    }
}

fn kill_until(child: &Child, deadline: Instant) -> io::Result<End> {
    send(child, Signal::KILL);
    let patience = deadline.saturating_duration_since(Instant::now());
    let [ended] = poll([Interest::readable(child.process())], Some(patience))?;
    if !ended {
        tracing::error!("the killed program does not end, because it waits for its storage");
    }
    Ok(End::Killed { deadline })
}

/// Sends a signal. This fails only when the process has just ended.
fn send(child: &Child, signal: Signal) {
    let _ = pidfd_send_signal(child.process(), signal);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_killed_after_half_of_the_time_or_at_a_second_signal() {
        let began = Instant::now();
        let timeout = Duration::from_secs(10);
        let stop = Stop { began, timeout };
        let kills = |asked, millis| {
            let now = began + Duration::from_millis(millis);
            stop.reason_to_kill(asked, now).is_some()
        };
        assert!(!kills(false, 4999));
        assert!(kills(false, 5000));
        assert!(kills(true, 500));
        assert!(!kills(true, 499), "an echo of the first signal");
        assert_eq!(stop.deadline() - began, timeout);
    }
}
