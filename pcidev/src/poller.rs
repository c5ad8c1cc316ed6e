//! Waits for all descriptors of a device at once.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// How many events one wait gives. If there are more, the next waits give them in their order.
const BATCH: usize = 64;

/// What a watched descriptor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The request to stop.
    Stop,
    /// The client, or the socket that the next one connects to.
    Client,
    /// The device, which gives its descriptors numbers of its own.
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

/// What a descriptor is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// There is something to read or to accept, or the peer hung up.
    Readable,
    /// There is room to write, or the peer hung up.
    Writable,
    /// The peer hung up.
    HungUp,
    /// An eventfd is signalled, or was so before it was watched.
    ///
    /// Each signal is an event of its own, and nobody takes it: an eventfd wakes those who wait for
    /// it at every write, and this is edge-triggered (epoll(7)). The kernel's own vhost waits for
    /// kicks in this way. So a peer's eventfd is never read, which could block, and one that stays
    /// readable (EFD_SEMAPHORE) cannot make us spin. At a million signals a second, its counter is
    /// full after 500,000 years.
    Signalled,
}

impl Until {
    /// That a peer hung up is always reported.
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

/// What one wait gave.
pub struct Events(Vec<Event>);

impl Poller {
    /// One that watches nothing.
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
    /// When it is watched already or cannot be (a regular file), or the operating system lacks
    /// memory.
    pub fn add(&self, fd: impl AsFd, source: Source, until: Until) -> io::Result<()> {
        Ok(epoll::add(&self.0, fd, source.encode(), until.flags())?)
    }

    /// Watches a descriptor for something else than before.
    ///
    /// # Errors
    ///
    /// When it is not watched.
    pub fn change(&self, fd: impl AsFd, source: Source, until: Until) -> io::Result<()> {
        Ok(epoll::modify(&self.0, fd, source.encode(), until.flags())?)
    }

    /// Stops watching a descriptor. To close it is not enough when another process has it, too.
    pub fn remove(&self, fd: impl AsFd) {
        // This fails for a descriptor that is not watched.
        let _ = epoll::delete(&self.0, fd);
    }

    /// Waits until something happens, but not longer than `timeout` (`None`: no limit). There are
    /// no events when that time is over, or a signal handler ran.
    ///
    /// # Errors
    ///
    /// When the operating system fails.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        // A duration that is too long for the kernel is longer than any process lives.
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
    /// Where something happened.
    pub fn sources(&self) -> impl Iterator<Item = Source> + '_ {
        self.0.iter().map(|event| Source::decode(event.data))
    }

    /// Whether something happened there.
    pub fn contain(&self, source: Source) -> bool {
        self.sources().any(|other| other == source)
    }

    /// The numbers of the device's descriptors where something happened.
    pub fn of_device(&self) -> impl Iterator<Item = u32> + '_ {
        self.sources().filter_map(|source| match source {
            Source::Device(number) => Some(number),
            Source::Stop | Source::Client => None,
        })
    }
}

#[cfg(test)]
impl Poller {
    /// The numbers of the device's descriptors where something happened by now.
    pub(crate) fn ready(&self) -> Vec<u32> {
        let mut events = Events::default();
        self.wait(&mut events, Some(Duration::ZERO)).unwrap();
        events.of_device().collect()
    }
}

#[cfg(test)]
mod tests;
