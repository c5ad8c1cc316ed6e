//! Transports, which carry messages between a front-end and this back-end.

mod socket;

use std::error::Error;
use std::fmt::Debug;
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
/// A transport turns the descriptors of requests into plain types before it returns the requests. A
/// session therefore sees no difference between transports.
pub trait Transport {
    /// Waits until there is an event, or until `wake` is readable.
    ///
    /// # Errors
    ///
    /// [`TransportError`] when no front-end can be served any more, now or later. A mistake of a
    /// front-end is an [`Event::Dropped`] instead.
    fn next(&mut self, wake: BorrowedFd<'_>) -> Result<Event, TransportError>;

    /// Answers a request. A front-end that has left by now does not get the reply. A transport that
    /// carries no descriptors drops the reply's descriptors.
    ///
    /// # Errors
    ///
    /// As for [`Transport::next`].
    fn reply(&mut self, to: Head, reply: Reply) -> Result<(), TransportError>;

    /// Ends the conversation with the front-end. Later events other than [`Event::Woken`] are about
    /// another front-end.
    ///
    /// # Errors
    ///
    /// As for [`Transport::next`].
    fn disconnect(&mut self) -> Result<(), TransportError>;

    /// The protocol features in `offered` that work over this transport.
    fn protocol_features(&self, offered: ProtocolFeatures) -> ProtocolFeatures;
}

/// An event at a transport.
#[derive(Debug)]
pub enum Event {
    /// The front-end asks for something.
    Request(Incoming),
    /// The front-end left. The transport is ready for the next one.
    Left,
    /// The front-end was dropped. The transport is ready for the next one.
    Dropped(DropReason),
    /// The front-end left, and there can be no next one.
    Closed,
    /// The caller's own descriptor is readable.
    Woken,
}

/// A front-end's message.
#[derive(Debug)]
pub struct Incoming {
    /// The message's header, which an answer needs.
    pub head: Head,
    /// The request; or the reason why the message is not a request, which is a mistake of the
    /// front-end.
    pub request: Result<Request<Attached>, RequestError>,
}

/// Why a transport dropped its front-end.
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

/// Why a transport cannot be used any more.
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

/// Inspects a front-end's memory before a transport maps it.
pub trait Inspect: Debug + Send {
    /// Inspects the memory of the process at the other end of the socket `front_end`. `user_addrs`
    /// are addresses in that process's own address space.
    ///
    /// # Errors
    ///
    /// The reason why the memory cannot be used. The front-end's request is then refused.
    fn inspect(
        &mut self,
        front_end: BorrowedFd<'_>,
        user_addrs: &[u64],
    ) -> Result<(), Box<dyn Error + Send + Sync>>;
}
