//! The transport over a Unix socket, which the vhost-user specification describes.

mod attach;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use ipc::{Accepted, Interest, Listener, poll};
use virtio::memory::MemoryFiles;

use super::{DropReason, Event, Incoming, Transport, TransportError};
use crate::causes::WithCauses;
use crate::connection::{Connection, ConnectionError};
use crate::features::ProtocolFeatures;
use crate::message::{Head, Reply};
use crate::request::Request;
use attach::Descriptors;

/// The back-end's end of vhost-user connections over a Unix socket.
#[derive(Debug)]
pub struct SocketTransport {
    listener: Option<Listener>,
    connection: Option<Connection>,
    files: MemoryFiles,
    /// Whether the transport has already logged that another front-end waits.
    queue_reported: bool,
}

/// The result of [`SocketTransport::wait`]. Each field says whether a descriptor is readable.
struct Ready {
    wake: bool,
    /// Another front-end has connected.
    another: bool,
}

impl SocketTransport {
    /// A transport for the front-ends that connect to a listening socket, one after the other.
    pub fn listening(listener: Listener) -> Self {
        Self::new(Some(listener), None)
    }

    /// A transport for the one front-end at the other end of a connected socket.
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
            files: MemoryFiles::default(),
            queue_reported: false,
        }
    }

    /// Accepts memory in files of these kinds.
    #[must_use]
    pub fn accepting(self, files: MemoryFiles) -> Self {
        Self { files, ..self }
    }

    fn accept(&mut self) -> Result<(), TransportError> {
        let Some(listener) = &self.listener else {
            return Ok(());
        };
        match listener.accept().map_err(TransportError::Accept)? {
            Accepted::Peer(stream) => {
                let connection = Connection::new(stream).map_err(TransportError::Accept)?;
                self.connection = Some(connection);
            }
            Accepted::Nobody => {}
            Accepted::Later(error) => {
                tracing::warn!("cannot accept the next front-end yet: {error}");
            }
        }
        Ok(())
    }

    /// Receives a message. `None` means that the message has not completely arrived yet.
    fn receive(
        connection: &mut Connection,
        files: MemoryFiles,
    ) -> Result<Option<Incoming>, ConnectionError> {
        let Some((message, fds)) = connection.recv()? else {
            return Ok(None);
        };
        Ok(Some(Incoming {
            head: message.head,
            request: Request::attach(&message, fds, &mut Descriptors { files }),
        }))
    }

    /// Waits until the front-end's socket or one of `wakes` is readable. Waits for a new front-end
    /// if none is connected. While a front-end is connected, the wait also ends if another
    /// front-end waits and the transport has not yet logged this.
    fn wait(&self, wakes: [BorrowedFd<'_>; 2]) -> Result<Ready, TransportError> {
        let (source, timeout) = match (&self.connection, &self.listener) {
            (Some(connection), _) => (Interest::readable(connection), connection.time_left()),
            (None, Some(listener)) => listener.interest(),
            (None, None) => (Interest::Nothing, None),
        };
        let another = match &self.listener {
            Some(listener) if self.connection.is_some() && !self.queue_reported => {
                Interest::readable(listener)
            }
            _ => Interest::Nothing,
        };
        let [one, two] = wakes.map(Interest::Readable);
        let ready = poll([one, two, source, another], timeout);
        let [one, two, _, another] = ready.map_err(TransportError::Wait)?;
        Ok(Ready {
            wake: one || two,
            another,
        })
    }

    fn drop_front_end(&mut self, error: ConnectionError) -> Event {
        self.forget_front_end();
        match &self.listener {
            Some(_) if error.is_closed() => Event::Left,
            None if error.is_closed() => Event::Closed,
            _ => Event::Dropped(DropReason::Connection(error)),
        }
    }

    fn forget_front_end(&mut self) {
        self.connection = None;
        self.queue_reported = false;
    }
}

impl Transport for SocketTransport {
    fn next(&mut self, wakes: [BorrowedFd<'_>; 2]) -> Result<Event, TransportError> {
        while self.connection.is_some() || self.listener.is_some() {
            let ready = self.wait(wakes)?;
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
            match Self::receive(connection, self.files) {
                Ok(Some(incoming)) => return Ok(Event::Request(incoming)),
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
        if let Err(error) = connection.send(&to.reply(&reply.payload), &fds) {
            tracing::warn!(
                "the front-end does not get its reply: {}",
                WithCauses(&error)
            );
            // After the shutdown, `next` still returns the requests that the front-end sent before,
            // and then reports the end of the connection.
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

#[cfg(test)]
mod tests;
