//! Which of the device's many file descriptors have something to say.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// How many events are taken at once.
const BATCH: usize = 64;

/// What a file descriptor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// Front-ends connect here.
    Listener,
    /// The front-end's messages.
    FrontEnd,
    /// The front-end's kick of a vhost queue.
    Kick(u16),
    /// A client's eventfd for the call doorbell of a vhost queue.
    Doorbell(u16),
}

impl Token {
    fn encode(self) -> EventData {
        let (kind, queue) = match self {
            Self::Listener => (0, 0),
            Self::FrontEnd => (1, 0),
            Self::Kick(queue) => (2, queue),
            Self::Doorbell(queue) => (3, queue),
        };
        EventData::new_u64(kind << 16 | u64::from(queue))
    }

    fn decode(data: EventData) -> Self {
        let queue = data.u64() as u16;
        match data.u64() >> 16 {
            0 => Self::Listener,
            1 => Self::FrontEnd,
            2 => Self::Kick(queue),
            _ => Self::Doorbell(queue),
        }
    }
}

/// An epoll instance, itself readable when one of its file descriptors is.
#[derive(Debug)]
pub(super) struct Poller(OwnedFd);

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Waits for a file descriptor to become readable from now on.
    pub(super) fn add(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::add(&self.0, fd, token.encode(), EventFlags::IN)?)
    }

    /// Waits for more to read or, if not, only for the peer to hang up.
    pub(super) fn set_reading(&self, fd: impl AsFd, token: Token, reading: bool) -> io::Result<()> {
        let flags = match reading {
            true => EventFlags::IN,
            false => EventFlags::empty(),
        };
        Ok(epoll::modify(&self.0, fd, token.encode(), flags)?)
    }

    /// Forgets a file descriptor. Closing it is not enough where another process has it, too.
    pub(super) fn remove(&self, fd: impl AsFd) {
        // It fails for one that is not there, which is what was wanted.
        let _ = epoll::delete(&self.0, fd);
    }

    /// What there is now; does not wait.
    pub(super) fn ready(&self) -> io::Result<Vec<Token>> {
        let mut events = Vec::<Event>::with_capacity(BATCH);
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // It does not wait, so that no signal interrupts it.
        epoll::wait(
            &self.0,
            rustix::buffer::spare_capacity(&mut events),
            Some(&now),
        )?;
        let tokens = events.iter().map(|event| Token::decode(event.data));
        Ok(tokens.collect())
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
