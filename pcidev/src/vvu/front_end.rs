//! The connected front-end.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vhost_user::{Connection, ConnectionError, Message};

use super::token::Token;
use crate::poller::{Poller, Until};

/// A connected front-end, and its message that waits for a buffer of the driver.
#[derive(Debug)]
pub(super) struct FrontEnd {
    connection: Connection,
    /// The message that waits for a buffer of the driver. The device already uses the file
    /// descriptors of the message. No further message is read before this message is delivered.
    pub(super) waiting: Option<Message>,
}

impl FrontEnd {
    pub(super) fn new(stream: UnixStream, poller: &Poller) -> io::Result<Self> {
        let connection = Connection::new(stream)?;
        poller.add(&connection, Token::FrontEnd.into(), Until::Readable)?;
        Ok(Self {
            connection,
            waiting: None,
        })
    }

    /// The time that is left for the front-end to complete its message. `None` means that no
    /// message has begun.
    pub(super) fn time_left(&self) -> Option<Duration> {
        self.connection.time_left()
    }

    pub(super) fn recv(&mut self) -> Result<Option<(Message, Vec<OwnedFd>)>, ConnectionError> {
        self.connection.recv()
    }

    pub(super) fn send(&mut self, message: &Message) -> Result<(), ConnectionError> {
        self.connection.send(message, &[])
    }

    /// Watches the front-end for messages if `reading` is true, and otherwise only for a hang-up.
    pub(super) fn set_reading(&self, reading: bool, poller: &Poller) -> io::Result<()> {
        let until = if reading {
            Until::Readable
        } else {
            Until::HungUp
        };
        poller.change(&self.connection, Token::FrontEnd.into(), until)
    }

    pub(super) fn close(self, poller: &Poller) {
        poller.remove(&self.connection);
    }
}
