//! What carries messages between a front-end and this back-end.

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

/// Carries messages, in order and both ways, one front-end at a time.
///
/// Requests come out with what in the socket's case are descriptors already turned into plain
/// types, so that a session sees no difference between transports.
pub trait Transport {
    /// Waits until there is an event, or `wake` is readable.
    ///
    /// # Errors
    ///
    /// [`TransportError`] when no front-end can be served any more, now or later. What a front-end
    /// does wrong is an [`Event::Dropped`] instead.
    fn next(&mut self, wake: BorrowedFd<'_>) -> Result<Event, TransportError>;

    /// Answers a request. A front-end that has left by now does not get the reply. A transport
    /// that carries no descriptors drops those of the reply.
    ///
    /// # Errors
    ///
    /// As for [`Transport::next`].
    fn reply(&mut self, to: Head, reply: Reply) -> Result<(), TransportError>;

    /// Ends the conversation with the front-end, from this side. The next event but
    /// [`Event::Woken`] is about another front-end.
    ///
    /// # Errors
    ///
    /// As for [`Transport::next`].
    fn disconnect(&mut self) -> Result<(), TransportError>;

    /// Those of these protocol features that work over this transport.
    fn protocol_features(&self, offered: ProtocolFeatures) -> ProtocolFeatures;
}

/// What a transport has to say.
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
    /// What it takes to answer it.
    pub head: Head,
    /// What it asks for; or why it is not a request, which is the front-end's mistake.
    pub request: Result<Request<Attached>, RequestError>,
}

/// Why a transport dropped its front-end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DropReason {
    /// The connection failed.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// What a transport of another kind says.
    #[error(transparent)]
    Transport(Box<dyn Error + Send + Sync>),
}

/// Why a transport cannot be used any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// A front-end that connected cannot be let in.
    #[error("cannot accept a front-end")]
    Accept(#[source] io::Error),
    /// There is no waiting for front-ends.
    #[error("cannot wait for a front-end")]
    Wait(#[source] io::Error),
    /// What a transport of another kind says.
    #[error(transparent)]
    Transport(Box<dyn Error + Send + Sync>),
}

/// Asked before memory of a front-end is taken.
pub trait Inspect: Debug + Send {
    /// Looks at memory that the process at the other end of the socket `front_end` has at the
    /// addresses `user_addrs` of its own address space.
    ///
    /// # Errors
    ///
    /// Why the memory is of no use; the front-end's request is refused then.
    fn inspect(
        &mut self,
        front_end: BorrowedFd<'_>,
        user_addrs: &[u64],
    ) -> Result<(), Box<dyn Error + Send + Sync>>;
}
