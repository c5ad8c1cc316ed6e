//! The connected front-end.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use vvu::vhost_user::{Connection, ConnectionError, Inspector, Message};

use super::Refusal;
use super::poller::{Poller, Token};

/// A front-end, with the message that the driver has no buffer for yet.
#[derive(Debug)]
pub(super) struct FrontEnd {
    connection: Connection,
    /// Its file descriptors are in use already. No further message is read before it is delivered.
    pub(super) waiting: Option<Message>,
}

impl FrontEnd {
    pub(super) fn new(stream: UnixStream, poller: &Poller) -> io::Result<Self> {
        let connection = Connection::new(stream)?;
        poller.add(&connection, Token::FrontEnd)?;
        Ok(Self {
            connection,
            waiting: None,
        })
    }

    pub(super) fn recv(&mut self) -> Result<Option<(Message, Vec<OwnedFd>)>, ConnectionError> {
        self.connection.recv()
    }

    /// Checks that memory which a message announces is shared, as far as that can be known.
    pub(super) fn inspect(
        &self,
        message: &Message,
        inspector: &mut Inspector,
    ) -> Result<(), Refusal> {
        let shared = inspector.check(&self.connection, message);
        shared.map_err(|error| Refusal::new(error.to_string()))
    }

    pub(super) fn send(&mut self, message: &Message) -> Result<(), ConnectionError> {
        self.connection.send(message)
    }

    /// Reads messages, or waits only for the front-end to leave.
    pub(super) fn set_reading(&self, reading: bool, poller: &Poller) -> io::Result<()> {
        poller.set_reading(&self.connection, Token::FrontEnd, reading)
    }

    pub(super) fn close(self, poller: &Poller) {
        poller.remove(&self.connection);
    }
}
