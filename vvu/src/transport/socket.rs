//! vhost-user over a Unix socket, the protocol's own transport.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::vhost_user::message::{FrontendReq, VhostUserMemoryRegion};
use virtio::{Notifier, Region};
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

use super::{Event, MemoryRegion, Request, Resource, ResourceError, Transport, TransportError};
use crate::vhost_user::{
    Connection, ConnectionError, Inspector, Listener, Message, decode_regions,
};

/// How long a front-end may take from the first byte of a message to its last.
const MESSAGE_DEADLINE: Duration = Duration::from_secs(5);

/// A back-end's end of vhost-user over a Unix socket.
#[derive(Debug)]
pub struct SocketTransport {
    listener: Option<Listener>,
    connection: Option<Connection>,
    message_began: Option<Instant>,
    deadline: Duration,
    inspector: Option<Inspector>,
}

impl SocketTransport {
    /// Serves the front-ends that connect to a listening socket, one after the other.
    pub fn listening(listener: Listener) -> Self {
        Self::new(Some(listener), None)
    }

    /// Serves the one front-end at the other end of a connected socket.
    ///
    /// # Errors
    ///
    /// When the socket cannot be made non-blocking.
    pub fn connected(stream: UnixStream) -> io::Result<Self> {
        Ok(Self::new(None, Some(Connection::new(stream)?)))
    }

    fn new(listener: Option<Listener>, connection: Option<Connection>) -> Self {
        Self {
            listener,
            connection,
            message_began: None,
            deadline: MESSAGE_DEADLINE,
            inspector: None,
        }
    }

    /// Has front-ends' memory looked at, whether it is really shared.
    pub fn inspected_by(mut self, inspector: Inspector) -> Self {
        self.inspector = Some(inspector);
        self
    }

    fn accept(&mut self) -> Result<(), TransportError> {
        let Some(listener) = &self.listener else {
            return Ok(());
        };
        let accepted = listener
            .accept()
            .and_then(|stream| stream.map(Connection::new).transpose());
        self.connection =
            accepted.map_err(|error| TransportError(format!("accept a front-end: {error}")))?;
        Ok(())
    }

    /// A whole message, if there is one.
    fn receive(
        connection: &mut Connection,
        inspector: &mut Option<Inspector>,
    ) -> Result<Option<Request>, ConnectionError> {
        let Some((message, fds)) = connection.recv()? else {
            return Ok(None);
        };
        let inspect = |inspector: &mut Inspector| inspector.check(connection, &message);
        let shared = inspector.as_mut().map_or(Ok(()), inspect).map_err(invalid);
        let resource = shared.and_then(|()| resource(&message, fds));
        Ok(Some(Request { message, resource }))
    }

    /// Waits for the socket in use or for `wake`; true when it was `wake`.
    fn wait(
        &self,
        wake: BorrowedFd<'_>,
        deadline: Option<Instant>,
    ) -> Result<bool, TransportError> {
        let source = match (&self.connection, &self.listener) {
            (Some(connection), _) => connection.as_fd(),
            (None, Some(listener)) => listener.as_fd(),
            (None, None) => wake,
        };
        let mut fds = [
            PollFd::new(&wake, PollFlags::IN),
            PollFd::new(&source, PollFlags::IN),
        ];
        let timeout = deadline.map(remaining);
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(!fds[0].revents().is_empty()),
            Err(errno) => Err(TransportError(format!("wait for a front-end: {errno}"))),
        }
    }

    fn drop_front_end(&mut self, error: ConnectionError) -> Event {
        self.connection = None;
        self.message_began = None;
        match (error, &self.listener) {
            (ConnectionError::Closed, Some(_)) => Event::Disconnected(None),
            (ConnectionError::Closed, None) => Event::Closed,
            (error, _) => Event::Disconnected(Some(error.to_string())),
        }
    }
}

impl Transport for SocketTransport {
    fn next(&mut self, wake: BorrowedFd<'_>) -> Result<Event, TransportError> {
        while self.connection.is_some() || self.listener.is_some() {
            let deadline = self.message_began.map(|began| began + self.deadline);
            if self.wait(wake, deadline)? {
                return Ok(Event::Woken);
            }
            let Some(connection) = &mut self.connection else {
                self.accept()?;
                continue;
            };
            match Self::receive(connection, &mut self.inspector) {
                Ok(Some(request)) => {
                    self.message_began = None;
                    return Ok(Event::Request(request));
                }
                Ok(None) if deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                    return Ok(self.drop_front_end(ConnectionError::Stalled));
                }
                Ok(None) if connection.mid_message() => {
                    self.message_began.get_or_insert_with(Instant::now);
                }
                Ok(None) => {}
                Err(error) => return Ok(self.drop_front_end(error)),
            }
        }
        Ok(Event::Closed)
    }

    fn reply(&mut self, message: &Message) -> Result<(), TransportError> {
        if let Some(connection) = &mut self.connection
            && let Err(error) = connection.send(message)
        {
            tracing::warn!("the front-end does not get its reply: {error}");
            // What it said before is still served, then its end is seen like any other.
            connection.shut_down();
        }
        Ok(())
    }

    fn disconnect(&mut self) -> Result<(), TransportError> {
        self.connection = None;
        self.message_began = None;
        Ok(())
    }

    fn protocol_features(&self, offered: u64) -> u64 {
        offered
    }
}

fn remaining(deadline: Instant) -> Timespec {
    let left = deadline.saturating_duration_since(Instant::now());
    // Both parts fit: the longest wait is a few seconds.
    Timespec {
        tv_sec: left.as_secs() as i64,
        tv_nsec: left.subsec_nanos().into(),
    }
}

/// Turns a message's file descriptors into what they stand for.
fn resource(message: &Message, fds: Vec<OwnedFd>) -> Result<Resource, ResourceError> {
    match message.code() {
        Some(FrontendReq::SET_MEM_TABLE) => {
            let regions = decode_regions(&message.payload).map_err(invalid)?;
            map_regions(regions, fds)
        }
        Some(FrontendReq::ADD_MEM_REG) => {
            let region = message.as_single_region().map_err(invalid)?;
            map_regions(vec![region], fds)
        }
        Some(FrontendReq::SET_VRING_KICK) => Ok(Resource::Kick(eventfd(message, fds)?)),
        Some(FrontendReq::SET_VRING_CALL | FrontendReq::SET_VRING_ERR) => {
            let eventfd = eventfd(message, fds)?;
            let notifier = |eventfd| Arc::new(FrontEndEventFd(eventfd)) as Arc<dyn Notifier>;
            Ok(Resource::Notifier(eventfd.map(notifier)))
        }
        // Some front-ends repeat the region's file descriptor here; it is not needed.
        Some(FrontendReq::REM_MEM_REG) => Ok(Resource::None),
        _ if fds.is_empty() => Ok(Resource::None),
        _ => Err(invalid("it brings file descriptors that it should not")),
    }
}

fn map_regions(
    regions: Vec<VhostUserMemoryRegion>,
    fds: Vec<OwnedFd>,
) -> Result<Resource, ResourceError> {
    if regions.len() != fds.len() {
        let (regions, fds) = (regions.len(), fds.len());
        return Err(invalid(format!(
            "{regions} memory regions come with {fds} file descriptors"
        )));
    }
    let mapped = regions
        .iter()
        .zip(fds)
        .map(|(region, fd)| map_region(region, fd));
    Ok(Resource::Memory(mapped.collect::<Result<_, _>>()?))
}

fn map_region(region: &VhostUserMemoryRegion, fd: OwnedFd) -> Result<MemoryRegion, ResourceError> {
    let file = Arc::new(File::from(fd));
    let start = GuestAddress(region.guest_phys_addr);
    let user_addr = region.user_addr;
    if user_addr.checked_add(region.memory_size).is_none() {
        return Err(invalid(format!(
            "memory region at user address {user_addr:#x} wraps around"
        )));
    }
    let mapped = Region::map(file, region.mmap_offset, start, region.memory_size, true);
    let region = Arc::new(mapped.map_err(|error| {
        invalid(format!(
            "{error}; is the front-end's memory shared (share=on)?"
        ))
    })?);
    Ok(MemoryRegion { region, user_addr })
}

fn eventfd(message: &Message, fds: Vec<OwnedFd>) -> Result<Option<Arc<EventFd>>, ResourceError> {
    let announced = usize::from(message.as_vring_fd().map_err(invalid)?.has_fd);
    if announced != fds.len() {
        let count = fds.len();
        return Err(invalid(format!(
            "it announces {announced} eventfds and brings {count}"
        )));
    }
    let Some(fd) = fds.into_iter().next() else {
        return Ok(None);
    };
    // SAFETY: the descriptor is owned here and given away whole. Should it be no eventfd, reading
    // and writing it fails or does nothing of use to its sender.
    Ok(Some(Arc::new(unsafe {
        EventFd::from_raw_fd(fd.into_raw_fd())
    })))
}

/// An eventfd of the front-end, which decides by itself whether writing to it may block.
#[derive(Debug)]
struct FrontEndEventFd(Arc<EventFd>);

impl Notifier for FrontEndEventFd {
    fn notify(&self) -> io::Result<()> {
        // SAFETY: the eventfd is open as long as the borrow lasts.
        let fd = unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) };
        let mut writable = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
        match poll(&mut writable, Some(&Timespec::default())) {
            // The counter is at its limit: the front-end has a wake-up to come, and would block us.
            Ok(0) => Ok(()),
            _ => self.0.notify(),
        }
    }
}

fn invalid(reason: impl ToString) -> ResourceError {
    ResourceError(reason.to_string())
}

#[cfg(test)]
mod tests;
