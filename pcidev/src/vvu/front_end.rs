//! The connected front-end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vhost_user::{Connection, ConnectionError, Message};

use super::token::Token;
use crate::poller::{Poller, Until};

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
        poller.add(&connection, Token::FrontEnd.into(), Until::Readable)?;
        Ok(Self {
            connection,
            waiting: None,
        })
    }

    /// How long it may still take to end the message that it began, if it began one.
    pub(super) fn time_left(&self) -> Option<Duration> {
        self.connection.time_left()
    }

    pub(super) fn recv(&mut self) -> Result<Option<(Message, Vec<OwnedFd>)>, ConnectionError> {
        self.connection.recv()
    }

    pub(super) fn send(&mut self, message: &Message) -> Result<(), ConnectionError> {
        self.connection.send(message, &[])
    }

    /// Reads messages, or waits only for the front-end to leave.
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

impl AsFd for FrontEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}
