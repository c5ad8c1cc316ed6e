//! The harness's end of the line to the agent in a guest.

use std::collections::HashMap;
use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::live::{Live, Output, Stream};
use crate::protocol::{Frame, Kind};

/// A connection to an agent.
#[derive(Debug)]
pub struct Agent {
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

impl Agent {
    /// Takes over a connection that QEMU made.
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

    /// How often the guest has booted.
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
                bail!("QEMU ended before the guest was up");
            }
            if left.is_zero() {
                bail!("the guest is not up after {} s", timeout.as_secs());
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Starts a shell command in the guest, whose output `live` takes.
    pub fn spawn(self: &Arc<Self>, command: &str, live: Live) -> Result<GuestProcess> {
        let live = Arc::new(live);
        let id = self.shared.register(&live)?;
        self.send(Frame::new(Kind::Run, id, command))?;
        Ok(GuestProcess {
            agent: self.clone(),
            id,
            live,
            command: command.to_owned(),
        })
    }

    /// Asks the guest to switch itself off or to restart.
    pub fn end(&self, how: Kind) -> Result<()> {
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
            bail!("the guest is gone: its QEMU has ended");
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
        self.lose_commands("the guest is gone: its QEMU has ended");
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn take(&self, frame: Frame) -> io::Result<()> {
        match frame.kind {
            Kind::Hello => {
                self.lose_commands("the guest has rebooted");
                self.lock().boots += 1;
                self.changed.notify_all();
            }
            Kind::Stdout => self.tell(frame.id, |live| live.push(Stream::Stdout, &frame.data)),
            Kind::Stderr => self.tell(frame.id, |live| live.push(Stream::Stderr, &frame.data)),
            Kind::Exit => {
                let status = frame.as_number()?;
                self.tell(frame.id, |live| live.end(status));
                self.lock().commands.remove(&frame.id);
            }
            Kind::Run | Kind::Signal | Kind::PowerOff | Kind::Reboot => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the agent gives orders",
                ));
            }
        }
        Ok(())
    }

    fn tell(&self, id: u32, what: impl FnOnce(&Live)) {
        let live = self.lock().commands.get(&id).cloned();
        if let Some(live) = live {
            what(&live);
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
    agent: Arc<Agent>,
    id: u32,
    live: Arc<Live>,
    command: String,
}

impl GuestProcess {
    /// Waits for a line of output that contains `pattern`.
    pub fn wait_line(&self, pattern: &str, timeout: Duration) -> Result<String> {
        self.live
            .wait_line(pattern, timeout)
            .with_context(|| self.what())
    }

    /// Waits for the end of the command.
    pub fn wait(&self, timeout: Duration) -> Result<Output> {
        self.live.wait_end(timeout).with_context(|| self.what())
    }

    /// Sends a signal to the command and all that it started.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.agent
            .send(Frame::number(Kind::Signal, self.id, signal.as_raw()))
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(&self, timeout: Duration) -> Result<Output> {
        self.signal(Signal::TERM)?;
        self.wait(timeout)
    }

    fn what(&self) -> String {
        format!(
            "guest command `{}`",
            self.command.lines().next().unwrap_or_default()
        )
    }
}
