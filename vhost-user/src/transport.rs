//! Transports, which carry messages between front-ends and a session.

mod socket;

use std::error::Error;
use std::io;
use std::os::fd::BorrowedFd;

use crate::connection::ConnectionError;
use crate::features::ProtocolFeatures;
use crate::message::{Head, Reply};
use crate::request::{Request, RequestError};
use crate::resources::Attached;

pub use socket::SocketTransport;

/// Carries messages in both directions and in order. A transport has one front-end at a time.
///
/// A transport turns the descriptors of requests into the object types of [`Attached`] before it
/// returns the requests. A session therefore works with all transports in the same way.
pub trait Transport {
    /// Waits for the next event, or until one of `wakes` is readable.
    ///
    /// # Errors
    ///
    /// [`TransportError`] when the transport cannot serve any front-end any more. A failure of only
    /// the present front-end is reported as [`Event::Dropped`] instead.
    fn next(&mut self, wakes: [BorrowedFd<'_>; 2]) -> Result<Event, TransportError>;

    /// Answers a request. If the front-end has left, the reply is dropped. A transport that carries
    /// no descriptors drops the reply's descriptors.
    ///
    /// # Errors
    ///
    /// As for [`Transport::next`].
    fn reply(&mut self, to: Head, reply: Reply) -> Result<(), TransportError>;

    /// Ends the conversation with the front-end. Each later event is about another front-end, or is
    /// [`Event::Woken`] or [`Event::Closed`].
    ///
    /// # Errors
    ///
    /// As for [`Transport::next`].
    fn disconnect(&mut self) -> Result<(), TransportError>;

    /// The protocol features in `offered` that work over this transport.
    fn protocol_features(&self, offered: ProtocolFeatures) -> ProtocolFeatures;
}

/// An event that a transport reports.
#[derive(Debug)]
pub enum Event {
    /// The front-end sent a message.
    Request(Incoming),
    /// The front-end closed the connection. Another front-end can connect.
    Left,
    /// The transport dropped the front-end for this reason. [`Event::Closed`] follows if no other
    /// front-end can connect.
    Dropped(DropReason),
    /// No front-end is connected, and no other front-end can connect.
    Closed,
    /// One of the descriptors `wakes` of [`Transport::next`] is readable.
    Woken,
}

/// A message from a front-end.
#[derive(Debug)]
pub struct Incoming {
    /// The head of the message, from which the answer is made.
    pub head: Head,
    /// The decoded request. An error means that the front-end made a mistake, because the message
    /// is not a valid request.
    pub request: Result<Request<Attached>, RequestError>,
}

/// The reason why a transport dropped its front-end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DropReason {
    /// The connection failed.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// An error of a transport that is not part of this crate.
    #[error(transparent)]
    Transport(Box<dyn Error + Send + Sync>),
}

/// The reason why a transport cannot be used any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The transport cannot accept a front-end's connection.
    #[error("cannot accept a front-end")]
    Accept(#[source] io::Error),
    /// Waiting for front-ends failed.
    #[error("cannot wait for a front-end")]
    Wait(#[source] io::Error),
    /// An error of a transport that is not part of this crate.
    #[error(transparent)]
    Transport(Box<dyn Error + Send + Sync>),
}
