//! The vhost-user protocol, for both of its ends.
//!
//! The [`table`] says of each message how it is sent and answered. A [`Message`] is its bytes, a
//! [`Request`] what these bytes and the descriptors beside them mean. A [`Connection`] exchanges
//! messages over a Unix socket, and a [`FrontEnd`] makes requests over one. For a back-end,
//! [`session::serve`] serves a device to the front-ends that come through any [`Transport`].
//!
//! Source: QEMU's `docs/interop/vhost-user.rst`.

mod causes;
mod connection;
mod features;
mod front_end;
mod memory;
mod message;
mod payload;
mod request;
mod resources;
pub mod session;
pub mod table;
#[cfg(test)]
mod test_bytes;
mod transport;

pub use causes::WithCauses;
pub use connection::{Connection, ConnectionError};
pub use features::{F_LOG_ALL, F_PROTOCOL_FEATURES, ProtocolFeatures};
pub use front_end::{FrontEnd, FrontEndError, VringSetup};
pub use memory::{MAX_SLOTS, MemoryError, MemoryRegion, MemoryTable};
pub use message::{DecodeError, Flags, HEADER_SIZE, Head, MAX_PAYLOAD, Message, Reply};
pub use payload::{ConfigAccess, MAX_REGIONS, PayloadError, VringAddr, VringFd, VringState};
pub use request::{BackEndRequest, Request, RequestError};
pub use resources::{Absent, Attach, AttachError, Attached, Descriptor, Resources, Signal};
pub use table::{BackEndCode, Code};
pub use transport::{
    DropReason, Event, Incoming, Inspect, SocketTransport, Transport, TransportError,
};
