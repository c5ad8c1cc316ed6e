//! Runs programs on the host, and collects and logs their output.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::live::{Live, Output, Stream};

/// The time limit for a program to end after SIGKILL.
const REAP: Duration = Duration::from_secs(10);

/// A child process. Dropping this value kills the process. The process also ends if the thread that
/// started it ends.
#[derive(Debug)]
pub struct Process {
    name: String,
    id: u32,
    pidfd: OwnedFd,
    live: Arc<Live>,
    log: PathBuf,
}

impl Process {
    /// Starts `command`. The output of the command is written to `NAME.log` in `folder`.
    pub fn spawn(name: &str, command: &mut Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let live = Arc::new(Live::logged(&log)?);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        die_with_parent(command);
        let child = command.spawn().with_context(|| {
            format!(
                "cannot start {name} ({})",
                command.get_program().to_string_lossy()
            )
        })?;
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
            .with_context(|| format!("cannot watch {name}"))?;
        let id = child.id();
        watch(child, &live).with_context(|| format!("cannot watch {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            id,
            pidfd,
            live,
            log,
        })
    }

    /// Waits for a line of the program's output that contains `pattern`, and returns the line.
    pub fn wait_line(&self, pattern: &str, timeout: Duration) -> Result<String> {
        self.live
            .wait_line(pattern, timeout)
            .with_context(|| self.name.clone())
    }

    /// Waits until the program has ended, and returns its output.
    pub fn wait(&self, timeout: Duration) -> Result<Output> {
        self.live
            .wait_end(timeout)
            .with_context(|| format!("{} does not end", self.name))
    }

    /// Sends SIGTERM and waits for the program to end.
    pub fn terminate(&self, timeout: Duration) -> Result<Output> {
        self.signal(Signal::TERM);
        self.wait(timeout)
    }

    /// Sends SIGKILL and waits for the program to end.
    pub fn kill(&self) -> Result<Output> {
        self.signal(Signal::KILL);
        self.wait(REAP)
    }

    /// Sends a signal. Nothing happens if the program has already ended.
    pub fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// The name of the program, which error messages and the name of the log file contain.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id. After the program has ended, another process may have the same id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The path of the log file with the program's output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of the program's output, for an error message.
    pub fn tail(&self) -> String {
        self.live.tail()
    }
}

impl AsFd for Process {
    /// A descriptor that is readable once the program has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("==> {error:#}");
        }
    }
}

fn die_with_parent(command: &mut Command) {
    let request = || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec, where it must not allocate memory or take a
    // lock. The closure only makes one system call and converts an error number. Neither step
    // allocates memory or takes a lock.
    unsafe { command.pre_exec(request) };
}

/// Copies the child's output to `live`. When the child has ended, records its exit status in
/// `live`.
fn watch(mut child: Child, live: &Arc<Live>) -> io::Result<()> {
    let out = child
        .stdout
        .take()
        .map(|pipe| copy(pipe, Stream::Stdout, live));
    let err = child
        .stderr
        .take()
        .map(|pipe| copy(pipe, Stream::Stderr, live));
    let copies: Vec<_> = out.into_iter().chain(err).collect::<io::Result<_>>()?;
    let live = live.clone();
    thread::Builder::new().name("reap".into()).spawn(move || {
        let status = child.wait();
        for copy in copies {
            let _ = copy.join();
        }
        match status {
            Ok(status) => live.end(code(status)),
            Err(error) => live.lose(&format!("cannot wait for the program: {error}")),
        }
    })?;
    Ok(())
}

fn copy(
    mut pipe: impl Read + Send + 'static,
    stream: Stream,
    live: &Arc<Live>,
) -> io::Result<JoinHandle<()>> {
    let live = live.clone();
    thread::Builder::new()
        .name("copy output".into())
        .spawn(move || {
            let mut buffer = [0; 16 << 10];
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                live.push(stream, &buffer[..length]);
            }
        })
}

/// Waits until a file exists. Some programs print nothing when they are ready, but create a file.
pub fn wait_file(path: &Path, timeout: Duration) -> Result<()> {
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_millis(1);
    while !path.exists() {
        ensure!(
            Instant::now() < deadline,
            "{} does not appear",
            path.display()
        );
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    Ok(())
}

/// The exit status in the form that shells use: the exit code, or 128 plus the number of the signal
/// that ended the process.
pub fn code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rundir::RunDir;

    const LONG: Duration = Duration::from_secs(20);

    fn shell(script: &str, run: &RunDir) -> Process {
        Process::spawn("sh", Command::new("sh").args(["-c", script]), run.path()).unwrap()
    }

    #[test]
    fn output_is_collected_and_logged() {
        let run = RunDir::new("test").unwrap();
        let process = shell("echo ready: yes; echo no >&2; exit 3", &run);
        assert_eq!(process.wait_line("ready:", LONG).unwrap(), "ready: yes");
        let output = process.wait(LONG).unwrap();
        assert_eq!((output.status, output.error_text().as_str()), (3, "no\n"));
        assert!(
            std::fs::read_to_string(process.log())
                .unwrap()
                .contains("ready: yes")
        );
        run.discard().unwrap();
    }

    #[test]
    fn sigterm_ends_a_program() {
        let run = RunDir::new("test").unwrap();
        let process = shell(
            "trap 'exit 5' TERM; echo up; while :; do read -t 1 x; done",
            &run,
        );
        process.wait_line("up", LONG).unwrap();
        assert_eq!(process.terminate(LONG).unwrap().status, 5);
        run.discard().unwrap();
    }

    #[test]
    fn the_error_for_a_missing_program_names_it() {
        let run = RunDir::new("test").unwrap();
        let error = Process::spawn("x", &mut Command::new("/no/such"), run.path()).unwrap_err();
        assert!(error.to_string().contains("/no/such"), "{error}");
        run.discard().unwrap();
    }
}
