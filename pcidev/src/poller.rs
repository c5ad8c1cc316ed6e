//! Waits for all descriptors of a device at once.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// The maximum number of events that one wait returns. Later waits return the remaining events.
const BATCH: usize = 64;

/// The owner of a watched descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The descriptor that becomes readable when the event loop has to stop.
    Stop,
    /// The client, or the socket that the next client connects to.
    Client,
    /// The device. The number identifies one of the device's descriptors.
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
    /// Data can be read, a connection can be accepted, or the peer hung up.
    Readable,
    /// Data can be written, or the peer hung up.
    Writable,
    /// The peer hung up.
    HungUp,
    /// The eventfd is signalled, or was signalled before the watch began.
    ///
    /// The watch is edge-triggered (epoll(7)), and every write to an eventfd wakes the waiters. So
    /// a signal causes an event even if the counter of the eventfd was not 0 before. The kernel's
    /// vhost waits for kicks in the same way.
    ///
    /// This process never reads the eventfd. Therefore a peer cannot make it block in a read, and
    /// an eventfd that stays readable (EFD_SEMAPHORE) cannot make it spin. The counter only grows,
    /// but at a million signals a second it is full only after 500,000 years.
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
    /// When the descriptor is already watched, when it cannot be watched (for instance a regular
    /// file), or when the operating system lacks memory.
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

    /// Stops watching a descriptor. It does not suffice to close the descriptor, because the watch
    /// continues if another process has a copy of the descriptor.
    pub fn remove(&self, fd: impl AsFd) {
        // The call fails if the descriptor is not watched. This failure is harmless.
        let _ = epoll::delete(&self.0, fd);
    }

    /// Waits until a watched descriptor has an event, or until `timeout` has passed. `None` means
    /// that there is no limit. If the timeout has passed or a signal handler ran, `events` is empty
    /// afterwards.
    ///
    /// # Errors
    ///
    /// When the operating system fails.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        // A timeout that does not fit into the kernel's type is longer than any process runs, so it
        // counts as no limit.
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
    /// The numbers of the device's descriptors that already have an event.
    pub(crate) fn ready(&self) -> Vec<u32> {
        let mut events = Events::default();
        self.wait(&mut events, Some(Duration::ZERO)).unwrap();
        events.of_device().collect()
    }
}

#[cfg(test)]
mod tests;
