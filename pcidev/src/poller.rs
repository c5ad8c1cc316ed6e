//! Waits for all descriptors of a device at once.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// The maximum number of events that one wait returns. The next waits return further events, in
/// their order.
const BATCH: usize = 64;

/// The owner of a watched descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The request to stop.
    Stop,
    /// The client, or the socket that the next client connects to.
    Client,
    /// The device. The number tells which of the device's descriptors it is.
    Device(u32),
}

impl Source {
    const DEVICE: u64 = 1 << 32;

    fn encode(self) -> EventData {
        EventData::new_u64(match self {
            Self::Stop => 0,
            Self::Client => 1,
            Self::Device(number) => Self::DEVICE | u64::from(number),
        })
    }

    fn decode(data: EventData) -> Self {
        match data.u64() {
            0 => Self::Stop,
            1 => Self::Client,
            number => Self::Device(number as u32),
        }
    }
}

/// The event that a descriptor is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// There is something to read or to accept, or the peer hung up.
    Readable,
    /// There is room to write, or the peer hung up.
    Writable,
    /// The peer hung up.
    HungUp,
    /// The eventfd is signalled, or was signalled before it was watched.
    ///
    /// Each signal is an event of its own: every write to an eventfd wakes its waiters, and the
    /// watch is edge-triggered (epoll(7)). The kernel's own vhost waits for kicks in this way. So
    /// this process never reads a peer's eventfd, which could block, and an eventfd that stays
    /// readable (EFD_SEMAPHORE) cannot make this process spin. Nobody takes the signals, but at a
    /// million signals a second the counter of an eventfd is full only after 500,000 years.
    Signalled,
}

impl Until {
    /// The flags for epoll. A hang-up needs no flag, because epoll always reports it.
    fn flags(self) -> EventFlags {
        match self {
            Self::Readable => EventFlags::IN,
            Self::Writable => EventFlags::OUT,
            Self::HungUp => EventFlags::empty(),
            Self::Signalled => EventFlags::IN | EventFlags::ET,
        }
    }
}

/// Watches descriptors.
#[derive(Debug)]
pub struct Poller(OwnedFd);

/// The events that one wait returned.
pub struct Events(Vec<Event>);

impl Poller {
    /// A poller that watches nothing yet.
    ///
    /// # Errors
    ///
    /// When the operating system is out of descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Watches a descriptor.
    ///
    /// # Errors
    ///
    /// When the descriptor is watched already, cannot be watched (a regular file), or the operating
    /// system lacks memory.
    pub fn add(&self, fd: impl AsFd, source: Source, until: Until) -> io::Result<()> {
        Ok(epoll::add(&self.0, fd, source.encode(), until.flags())?)
    }

    /// Changes the event that a descriptor is watched for.
    ///
    /// # Errors
    ///
    /// When the descriptor is not watched.
    pub fn change(&self, fd: impl AsFd, source: Source, until: Until) -> io::Result<()> {
        Ok(epoll::modify(&self.0, fd, source.encode(), until.flags())?)
    }

    /// Stops watching a descriptor. Closing the descriptor is not enough if another process has it
    /// open, too.
    pub fn remove(&self, fd: impl AsFd) {
        // This fails for a descriptor that is not watched.
        let _ = epoll::delete(&self.0, fd);
    }

    /// Waits until something happens, but not longer than `timeout` (`None`: no limit). There are
    /// no events if the timeout has passed or a signal handler ran.
    ///
    /// # Errors
    ///
    /// When the operating system fails.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        // A timeout that is too long for the kernel becomes no limit, because no process lives that
        // long.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        events.0.clear();
        match epoll::wait(&self.0, spare_capacity(&mut events.0), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Default for Events {
    fn default() -> Self {
        Self(Vec::with_capacity(BATCH))
    }
}

impl Events {
    /// The sources of all events.
    pub fn sources(&self) -> impl Iterator<Item = Source> + '_ {
        self.0.iter().map(|event| Source::decode(event.data))
    }

    /// Whether there is an event of this source.
    pub fn contain(&self, source: Source) -> bool {
        self.sources().any(|other| other == source)
    }

    /// The numbers of the device's descriptors that have an event.
    pub fn of_device(&self) -> impl Iterator<Item = u32> + '_ {
        self.sources().filter_map(|source| match source {
            Source::Device(number) => Some(number),
            Source::Stop | Source::Client => None,
        })
    }
}

#[cfg(test)]
impl Poller {
    /// The numbers of the device's descriptors that have an event already.
    pub(crate) fn ready(&self) -> Vec<u32> {
        let mut events = Events::default();
        self.wait(&mut events, Some(Duration::ZERO)).unwrap();
        events.of_device().collect()
    }
}

#[cfg(test)]
mod tests;
