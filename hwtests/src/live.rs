//! Collects the output of a running program, and waits for lines of the output.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// One of the two output streams of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The output and the exit status of a program.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// The bytes on standard output.
    pub stdout: Vec<u8>,
    /// The bytes on standard error.
    pub stderr: Vec<u8>,
    /// The exit code, or 128 plus the number of the signal that ended the program.
    pub status: i32,
}

impl Output {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

#[derive(Debug, Default)]
struct State {
    output: Output,
    log: Option<File>,
    ended: bool,
    lost: Option<String>,
}

/// The output of a running program. Some threads add output, while other threads wait for lines or
/// for the end of the program.
#[derive(Debug, Default)]
pub struct Live {
    state: Mutex<State>,
    changed: Condvar,
}

impl Live {
    /// Makes an empty output. Bytes that are added are also appended to the file `log`.
    pub fn logged(log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("cannot write the log {}", log.display()))?;
        let state = State {
            log: Some(file),
            ..State::default()
        };
        Ok(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    /// Adds bytes that the program wrote to `stream`.
    pub fn push(&self, stream: Stream, bytes: &[u8]) {
        let mut state = self.lock();
        if let Some(log) = &mut state.log {
            // If the log cannot be written, the error is ignored, because the log is only a copy of
            // the output.
            let _ = log.write_all(bytes);
        }
        match stream {
            Stream::Stdout => state.output.stdout.extend_from_slice(bytes),
            Stream::Stderr => state.output.stderr.extend_from_slice(bytes),
        }
        self.changed.notify_all();
    }

    /// Records that the program ended with this exit status.
    pub fn end(&self, status: i32) {
        let mut state = self.lock();
        state.output.status = status;
        state.ended = true;
        self.changed.notify_all();
    }

    /// Records that the connection to the program broke, for the reason `why`. If the program has
    /// not ended, later waits fail with this reason.
    pub fn lose(&self, why: &str) {
        let mut state = self.lock();
        if !state.ended {
            state.lost = Some(why.to_owned());
        }
        self.changed.notify_all();
    }

    /// Waits for a complete line that contains `pattern`, and returns the first line found.
    /// Standard output is searched before standard error. Once the program has ended, a last line
    /// without a line break counts as complete, too.
    pub fn wait_line(&self, pattern: &str, timeout: Duration) -> Result<String> {
        let found = self.wait(timeout, |state| {
            let (out, err) = (&state.output.stdout, &state.output.stderr);
            find_line(out, pattern, state.ended).or_else(|| find_line(err, pattern, state.ended))
        });
        match found {
            Ok(line) => Ok(line),
            Err(why) => bail!("no line contains {pattern:?}: {why}{}", self.tail()),
        }
    }

    /// Waits for the end of the program, and returns its output.
    pub fn wait_end(&self, timeout: Duration) -> Result<Output> {
        match self.wait(timeout, |state| state.ended.then(|| state.output.clone())) {
            Ok(output) => Ok(output),
            Err(why) => bail!("{why}{}", self.tail()),
        }
    }

    /// The last 12 lines of the output (standard output, then standard error), formatted for the
    /// end of an error message.
    pub fn tail(&self) -> String {
        let state = self.lock();
        let both = [&state.output.stdout[..], &state.output.stderr[..]].concat();
        last_lines(&String::from_utf8_lossy(&both), 12)
    }

    fn wait<T>(
        &self,
        timeout: Duration,
        mut found: impl FnMut(&State) -> Option<T>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if let Some(value) = found(&state) {
                return Ok(value);
            }
            if state.ended {
                let status = state.output.status;
                return Err(format!("the program ended with status {status}"));
            }
            if let Some(why) = &state.lost {
                return Err(why.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("timed out after {} s", timeout.as_secs()));
            }
            state = match self.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last `count` lines of `text`, each with a line break and an indentation before it.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(count);
    lines[first..]
        .iter()
        .map(|line| format!("\n    | {line}"))
        .collect()
}

fn find_line(bytes: &[u8], pattern: &str, ended: bool) -> Option<String> {
    let complete = match bytes.iter().rposition(|&byte| byte == b'\n') {
        _ if ended => bytes.len(),
        Some(last) => last,
        None => return None,
    };
    let text = String::from_utf8_lossy(&bytes[..complete]);
    text.lines()
        .find(|line| line.contains(pattern))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(10);

    #[test]
    fn only_complete_lines_are_found() {
        let live = Live::default();
        live.push(Stream::Stdout, b"ready: on /tmp/x");
        assert!(live.wait_line("ready:", SHORT).is_err());
        live.push(Stream::Stdout, b".sock\nmore");
        assert_eq!(
            live.wait_line("ready:", SHORT).unwrap(),
            "ready: on /tmp/x.sock"
        );
    }

    #[test]
    fn a_wait_fails_with_the_last_output_if_the_program_ends() {
        let live = Live::default();
        live.push(Stream::Stderr, b"error: no such image\n");
        live.end(1);
        let error = live
            .wait_line("ready:", Duration::from_secs(60))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("status 1") && error.contains("no such image"),
            "{error}"
        );
    }

    #[test]
    fn a_lost_guest_fails_waits_except_for_programs_that_have_ended() {
        let live = Live::default();
        live.end(3);
        live.lose("the guest rebooted");
        assert_eq!(live.wait_end(SHORT).unwrap().status, 3);
        let other = Live::default();
        other.lose("the guest rebooted");
        assert!(
            other
                .wait_end(SHORT)
                .unwrap_err()
                .to_string()
                .contains("rebooted")
        );
    }
}
