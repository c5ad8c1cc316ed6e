//! The host's end of the connection to the agent, which is the first process of a guest.

use std::collections::HashMap;
use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::live::{Live, Output, Stream};
use crate::protocol::{Frame, FrameKind};

/// A connection to the agent in a guest.
#[derive(Debug)]
pub struct AgentConnection {
    writer: Mutex<UnixStream>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    boots: u32,
    closed: bool,
    next_id: u32,
    commands: HashMap<u32, Arc<Live>>,
}

impl AgentConnection {
    /// Uses a connection that QEMU made for the agent's serial port.
    pub fn new(stream: UnixStream) -> Result<Arc<Self>> {
        let reader = stream
            .try_clone()
            .context("cannot use the agent's connection")?;
        let shared = Arc::new(Shared::default());
        let agent = Arc::new(Self {
            writer: Mutex::new(stream),
            shared: shared.clone(),
        });
        thread::Builder::new()
            .name("agent".into())
            .spawn(move || shared.serve(reader))
            .context("cannot start a thread")?;
        Ok(agent)
    }

    /// The number of times that the guest has booted.
    pub fn boots(&self) -> u32 {
        self.shared.lock().boots
    }

    /// Waits until the guest has booted more than `boots` times.
    pub fn wait_boot(&self, boots: u32, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        while state.boots <= boots {
            let left = deadline.saturating_duration_since(Instant::now());
            if state.closed {
                bail!("QEMU ended before the guest started");
            }
            if left.is_zero() {
                bail!("the guest did not start within {} s", timeout.as_secs());
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Starts a shell command in the guest. The command's output is added to `live`.
    pub fn spawn(self: &Arc<Self>, command: &str, live: Live) -> Result<GuestProcess> {
        let live = Arc::new(live);
        let id = self.shared.register(&live)?;
        self.send(Frame::new(FrameKind::Run, id, command))?;
        Ok(GuestProcess {
            agent: self.clone(),
            id,
            live,
            command: command.to_owned(),
        })
    }

    /// Asks the guest to switch itself off (`PowerOff`) or to restart (`Reboot`).
    pub fn end(&self, how: FrameKind) -> Result<()> {
        self.send(Frame::new(how, 0, []))
    }

    fn send(&self, frame: Frame) -> Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        frame
            .write_to(&mut *writer)
            .context("the guest's agent cannot be reached")
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, live: &Arc<Live>) -> Result<u32> {
        let mut state = self.lock();
        if state.closed {
            bail!("the guest's QEMU has ended");
        }
        state.next_id += 1;
        let id = state.next_id;
        state.commands.insert(id, live.clone());
        Ok(id)
    }

    fn serve(&self, reader: UnixStream) {
        let mut reader = BufReader::new(reader);
        while Frame::read_from(&mut reader)
            .and_then(|frame| self.take(frame))
            .is_ok()
        {}
        self.lose_commands("the guest's QEMU has ended");
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn take(&self, frame: Frame) -> io::Result<()> {
        match frame.kind {
            FrameKind::Hello => {
                self.lose_commands("the guest has rebooted");
                self.lock().boots += 1;
                self.changed.notify_all();
            }
            FrameKind::Stdout => self.tell(frame.id, |live| live.push(Stream::Stdout, &frame.data)),
            FrameKind::Stderr => self.tell(frame.id, |live| live.push(Stream::Stderr, &frame.data)),
            FrameKind::Exit => {
                let status = frame.as_number()?;
                self.tell(frame.id, |live| live.end(status));
                self.lock().commands.remove(&frame.id);
            }
            FrameKind::Run | FrameKind::Signal | FrameKind::PowerOff | FrameKind::Reboot => {
                let message = "the agent sent a request of the host";
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        }
        Ok(())
    }

    fn tell(&self, id: u32, change: impl FnOnce(&Live)) {
        let live = self.lock().commands.get(&id).cloned();
        if let Some(live) = live {
            change(&live);
        }
    }

    fn lose_commands(&self, why: &str) {
        let lost = std::mem::take(&mut self.lock().commands);
        lost.values().for_each(|live| live.lose(why));
    }
}

/// A shell command that runs in a guest.
#[derive(Debug)]
pub struct GuestProcess {
    agent: Arc<AgentConnection>,
    id: u32,
    live: Arc<Live>,
    command: String,
}

impl GuestProcess {
    /// Waits for a line of the command's output that contains `pattern`, and returns the line.
    pub fn wait_line(&self, pattern: &str, timeout: Duration) -> Result<String> {
        self.live
            .wait_line(pattern, timeout)
            .with_context(|| self.describe())
    }

    /// Waits for the end of the command, and returns its output.
    pub fn wait(&self, timeout: Duration) -> Result<Output> {
        self.live.wait_end(timeout).with_context(|| self.describe())
    }

    /// Sends a signal to the command and to all processes that it started.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.agent
            .send(Frame::number(FrameKind::Signal, self.id, signal.as_raw()))
    }

    /// Sends SIGTERM, waits for the end of the command, and returns its output.
    pub fn terminate(&self, timeout: Duration) -> Result<Output> {
        self.signal(Signal::TERM)?;
        self.wait(timeout)
    }

    fn describe(&self) -> String {
        format!(
            "guest command `{}`",
            self.command.lines().next().unwrap_or_default()
        )
    }
}
