//! Stops the process inside in a limited time.

use std::io;
use std::time::{Duration, Instant};

use ipc::{Interest, poll};
use rustix::process::{Signal, pidfd_send_signal};

use super::birth::Child;
use crate::StopSignal;

/// The end of the process inside.
#[derive(Debug)]
pub enum End {
    /// It has ended by itself, with this exit code.
    Exited(i32),
    /// It did not stop in time, or the user did not want to wait. It was killed, but may not have
    /// ended yet. The supervisor may go on until the deadline.
    Killed { deadline: Instant },
}

/// A stop that has begun.
#[derive(Clone, Copy)]
struct Stop {
    /// The time when the process inside is killed.
    kill: Instant,
    /// The time when the supervisor ends.
    deadline: Instant,
}

/// Waits for the end of the process inside, and passes stop signals on.
///
/// The first signal begins a stop, which may take this time. The process inside has the first half
/// for requests in flight and for the flush. After that time, or at a second signal, it is killed.
/// The rest of the time is for the supervisor.
pub fn wait(child: &Child, signals: &StopSignal, timeout: Duration) -> io::Result<End> {
    let mut stop: Option<Stop> = None;
    loop {
        let patience = stop.map(|stop| stop.kill.saturating_duration_since(Instant::now()));
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
                let (kill, deadline) = (now + timeout / 2, now + timeout);
                stop = Some(Stop { kill, deadline });
            }
            Some(Stop { deadline, .. }) if asked => {
                tracing::error!("a second signal came, so the program is killed");
                return kill_until(child, deadline);
            }
            Some(Stop { kill, deadline }) if kill <= now => {
                let waited = (timeout / 2).as_secs_f32();
                tracing::error!("the program did not stop in {waited} s, so it is killed");
                return kill_until(child, deadline);
            }
            _ => {}
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
