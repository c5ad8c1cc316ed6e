//! What carries vhost-user messages between a front-end and this back-end.

mod socket;
mod vvu;

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use virtio::{Notifier, Region};
use vmm_sys_util::eventfd::EventFd;

use crate::vhost_user::Message;

pub use socket::SocketTransport;
pub use vvu::VvuTransport;

/// Carries vhost-user messages, in order and both ways, one front-end at a time.
///
/// Messages come out with what in the socket's case are file descriptors already turned into
/// plain types, so that a session sees no difference between transports.
pub trait Transport {
    /// Waits until there is something to say, or `wake` is readable.
    ///
    /// # Errors
    ///
    /// [`TransportError`] when no front-end can be served any more, now or later. What a front-end
    /// does wrong is no error here but a [`Event::Disconnected`].
    fn next(&mut self, wake: BorrowedFd<'_>) -> Result<Event, TransportError>;

    /// Sends a reply to the front-end. One that has left by now does not get it.
    ///
    /// # Errors
    ///
    /// As for [`Transport::next`].
    fn reply(&mut self, message: &Message) -> Result<(), TransportError>;

    /// Ends the conversation with the front-end, from this side. The next event but
    /// [`Event::Woken`] is about another front-end.
    ///
    /// # Errors
    ///
    /// As for [`Transport::next`].
    fn disconnect(&mut self) -> Result<(), TransportError>;

    /// Those of these vhost-user protocol features (a bit mask) that work over this transport.
    fn protocol_features(&self, offered: u64) -> u64;
}

/// What a transport has to say.
#[derive(Debug)]
pub enum Event {
    /// The front-end asks for something.
    Request(Request),
    /// The front-end left, or was dropped for the reason given. The transport is ready for the
    /// next one.
    Disconnected(Option<String>),
    /// The front-end left, and there can be no next one.
    Closed,
    /// The caller's own file descriptor is readable.
    Woken,
}

/// A front-end's request.
#[derive(Debug)]
pub struct Request {
    /// The message itself.
    pub message: Message,
    /// What it brought along; or why that cannot be used, which is the front-end's mistake.
    pub resource: Result<Resource, ResourceError>,
}

/// What a request brings along beside its bytes.
#[derive(Debug)]
pub enum Resource {
    /// Nothing.
    None,
    /// Memory of the front-end, for SET_MEM_TABLE and ADD_MEM_REG, in the message's order.
    Memory(Vec<MemoryRegion>),
    /// Becomes readable with requests, for SET_VRING_KICK; `None`: the queue has to be polled.
    Kick(Option<Arc<EventFd>>),
    /// Tells of used buffers or of a broken queue, for SET_VRING_CALL and SET_VRING_ERR; `None`:
    /// nobody wants to be told.
    Notifier(Option<Arc<dyn Notifier>>),
}

/// A mapped region, with the address that the front-end has it at.
#[derive(Clone, Debug)]
pub struct MemoryRegion {
    /// The mapped memory, at its guest-physical address.
    pub region: Arc<Region>,
    /// Where its first byte is in the front-end's own address space, in which vring addresses are.
    pub user_addr: u64,
}

/// Why what a request brought along cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ResourceError(pub String);

/// Why a transport is of no more use.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TransportError(pub String);
