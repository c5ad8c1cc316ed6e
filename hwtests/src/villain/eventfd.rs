//! Hostile eventfds.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use ipc::SharedEventFd;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::ioctl_fionbio;

use super::repeat::Repeat;

/// The largest value of an eventfd's counter. A write to a full eventfd blocks.
const FULL: u64 = u64::MAX - 1;

/// The number of times that a [`Contest`] empties its eventfd before it rests.
const BURST: usize = 256;
/// The time between two of these.
const PAUSE: Duration = Duration::from_micros(50);
/// The time for which a [`Contest`] leaves its eventfd full. It is longer than all measurements.
const REST: Duration = Duration::from_secs(8);

/// An eventfd that stays readable, because a read takes only one of its many signals.
pub fn endless() -> Result<SharedEventFd> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK | EventfdFlags::SEMAPHORE;
    Ok(SharedEventFd::from_fd(eventfd(u32::MAX, flags)?)?)
}

/// Makes writes to an eventfd block: fills its counter and clears O_NONBLOCK, which belongs to the
/// open file that the program has, too.
pub fn jam(fd: &SharedEventFd) -> Result<()> {
    fd.take()?;
    // If the program signalled meanwhile, the counter is not full yet, and the write fails.
    while rustix::io::write(fd, &FULL.to_ne_bytes()).is_err() {
        fd.take()?;
    }
    Ok(ioctl_fionbio(fd, false)?)
}

/// Signals an eventfd without end.
pub fn flood(fd: &SharedEventFd) -> Result<Repeat> {
    let fd = SharedEventFd::from_fd(fd.try_clone()?)?;
    Repeat::start(move || fd.signal().is_ok())
}

/// Clears O_NONBLOCK and takes the signals of an eventfd again and again, so that a program that
/// reads it after a poll finds nothing.
pub fn steal(fd: &SharedEventFd) -> Result<Repeat> {
    let fd = SharedEventFd::from_fd(fd.try_clone()?)?;
    Repeat::start(move || {
        let cleared = ioctl_fionbio(&fd, false).is_ok();
        cleared && fd.signal().is_ok() && fd.take().is_ok()
    })
}

/// Two threads that empty and fill an eventfd which blocks. A program that writes to the eventfd
/// after it saw room finds the eventfd full. After many rounds the eventfd stays full.
#[derive(Debug)]
pub struct Contest {
    fd: Arc<SharedEventFd>,
    filler: Repeat,
    drainer: Repeat,
    /// The drainer rests until this is dropped.
    end: Option<Sender<()>>,
}

impl Contest {
    /// Begins the contest for an eventfd.
    pub fn start(fd: &SharedEventFd) -> Result<Self> {
        let fd = Arc::new(SharedEventFd::from_fd(fd.try_clone()?)?);
        let (end, ended) = channel();
        let filled = fd.clone();
        let filler = Repeat::start(move || {
            let cleared = ioctl_fionbio(&filled, false).is_ok();
            let _ = rustix::io::write(&filled, &FULL.to_ne_bytes());
            cleared
        })?;
        let drained = fd.clone();
        let mut rounds = 0;
        let drainer = Repeat::start(move || {
            rounds += 1;
            let pause = if rounds % BURST == 0 { REST } else { PAUSE };
            let goes_on = ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout);
            drained.take().is_ok() && goes_on
        })?;
        let end = Some(end);
        Ok(Self {
            fd,
            filler,
            drainer,
            end,
        })
    }
}

impl Drop for Contest {
    fn drop(&mut self) {
        self.end = None;
        self.drainer.stop();
        self.filler.stop();
        // The filler is blocked until its eventfd has room.
        while !self.filler.is_finished() {
            let _ = self.fd.take();
            thread::yield_now();
        }
    }
}
