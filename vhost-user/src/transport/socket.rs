//! vhost-user over a Unix socket, the protocol's own transport.

mod attach;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{DropReason, Event, Incoming, Inspect, Transport, TransportError};
use crate::causes::WithCauses;
use crate::connection::{Connection, ConnectionError};
use crate::features::ProtocolFeatures;
use crate::listener::Listener;
use crate::message::{Head, Reply};
use crate::request::Request;
use attach::Descriptors;

/// How long a front-end may take from the first byte of a message to its last.
const MESSAGE_DEADLINE: Duration = Duration::from_secs(5);

/// A back-end's end of vhost-user over a Unix socket.
#[derive(Debug)]
pub struct SocketTransport {
    listener: Option<Listener>,
    connection: Option<Connection>,
    message_began: Option<Instant>,
    deadline: Duration,
    inspector: Option<Box<dyn Inspect>>,
    /// Whether it was said that another front-end waits.
    queue_reported: bool,
}

/// What a wait ended with.
struct Ready {
    wake: bool,
    /// Another front-end has connected.
    another: bool,
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
            queue_reported: false,
        }
    }

    /// Has `inspector` look at front-ends' memory before it is taken.
    pub fn inspected_by(mut self, inspector: impl Inspect + 'static) -> Self {
        self.inspector = Some(Box::new(inspector));
        self
    }

    fn accept(&mut self) -> Result<(), TransportError> {
        let Some(listener) = &self.listener else {
            return Ok(());
        };
        let stream = listener.accept();
        let connection = stream.and_then(|stream| stream.map(Connection::new).transpose());
        self.connection = connection.map_err(TransportError::Accept)?;
        Ok(())
    }

    /// A whole message, if there is one.
    fn receive(
        connection: &mut Connection,
        inspector: &mut Option<Box<dyn Inspect>>,
    ) -> Result<Option<Incoming>, ConnectionError> {
        let Some((message, fds)) = connection.recv()? else {
            return Ok(None);
        };
        let mut descriptors = Descriptors {
            front_end: connection.as_fd(),
            inspector: inspector.as_deref_mut(),
        };
        Ok(Some(Incoming {
            head: message.head,
            request: Request::attach(&message, fds, &mut descriptors),
        }))
    }

    /// Waits for the socket in use or for `wake`, and for a further front-end as long as there was
    /// none.
    fn wait(
        &self,
        wake: BorrowedFd<'_>,
        deadline: Option<Instant>,
    ) -> Result<Ready, TransportError> {
        let listener = self.listener.as_ref().map(AsFd::as_fd);
        let connection = self.connection.as_ref().map(AsFd::as_fd);
        let another = listener.filter(|_| connection.is_some() && !self.queue_reported);
        let source = connection.or(listener).unwrap_or(wake);
        let fds = [Some(wake), Some(source), another];
        let fds = fds.into_iter().flatten();
        let mut fds: Vec<_> = fds
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let timeout = deadline.map(remaining);
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(TransportError::Wait(errno.into())),
        }
        let is_ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        Ok(Ready {
            wake: is_ready(0),
            another: is_ready(2),
        })
    }

    fn drop_front_end(&mut self, error: ConnectionError) -> Event {
        self.forget_front_end();
        match (error, &self.listener) {
            (ConnectionError::Closed, Some(_)) => Event::Left,
            (ConnectionError::Closed, None) => Event::Closed,
            (error, _) => Event::Dropped(DropReason::Connection(error)),
        }
    }

    fn forget_front_end(&mut self) {
        self.connection = None;
        self.message_began = None;
        self.queue_reported = false;
    }
}

impl Transport for SocketTransport {
    fn next(&mut self, wake: BorrowedFd<'_>) -> Result<Event, TransportError> {
        while self.connection.is_some() || self.listener.is_some() {
            let deadline = self.message_began.map(|began| began + self.deadline);
            let ready = self.wait(wake, deadline)?;
            if ready.wake {
                return Ok(Event::Woken);
            }
            if ready.another {
                tracing::info!("another front-end has connected and waits until this one leaves");
                self.queue_reported = true;
            }
            let Some(connection) = &mut self.connection else {
                self.accept()?;
                continue;
            };
            match Self::receive(connection, &mut self.inspector) {
                Ok(Some(incoming)) => {
                    self.message_began = None;
                    return Ok(Event::Request(incoming));
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

    fn reply(&mut self, to: Head, reply: Reply) -> Result<(), TransportError> {
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        let fds: Vec<_> = reply.fds.iter().map(AsFd::as_fd).collect();
        if let Err(error) = connection.send_with_fds(&to.reply(&reply.payload), &fds) {
            tracing::warn!(
                "the front-end does not get its reply: {}",
                WithCauses(&error)
            );
            // What it said before is still served, then its end is seen like any other.
            connection.shut_down();
        }
        Ok(())
    }

    fn disconnect(&mut self) -> Result<(), TransportError> {
        self.forget_front_end();
        Ok(())
    }

    fn protocol_features(&self, offered: ProtocolFeatures) -> ProtocolFeatures {
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

#[cfg(test)]
mod tests;
