//! The vhost-user protocol, for front-ends and back-ends.
//!
//! The [`table`] has a row for each message. The row says how the message is sent and answered. A
//! [`Message`] holds the header and the payload of a message. A [`Request`] is a decoded message
//! with its descriptors. A [`Connection`] exchanges messages over a Unix socket, and a [`FrontEnd`]
//! makes requests over a connection. For a back-end, [`session::serve`] serves a device to the
//! front-ends that connect over a [`Transport`].
//!
//! The following example runs a front-end and a back-end at the two ends of a socket.
//!
//! ```
//! use std::os::fd::AsFd;
//! use std::os::unix::net::UnixStream;
//! use std::sync::Arc;
//! use std::time::Duration;
//! use std::thread;
//!
//! use vhost_user::{
//!     F_PROTOCOL_FEATURES, FrontEnd, MemoryRegion, MemoryTable, ProtocolFeatures, Request,
//!     SocketTransport, session,
//! };
//! use virtio::{Device, RingOptions, Runner};
//! # use virtio::{ConfigError, DeviceKind, ServeError, ServedQueue, Wake};
//! # struct Disk;
//! # impl Device for Disk {
//! #     fn kind(&self) -> DeviceKind { DeviceKind { id: 2, class: 0x01_0000 } }
//! #     fn features(&self) -> u64 { 0 }
//! #     fn queue_count(&self) -> u16 { 4 }
//! #     fn read_config(&self, _: usize, data: &mut [u8]) { data.fill(7) }
//! #     fn write_config(&self, at: usize, data: &[u8]) -> Result<(), ConfigError> {
//! #         Err(ConfigError::new(at, data))
//! #     }
//! #     fn serve(&self, _: &mut ServedQueue, wake: &Wake) -> Result<(), ServeError> {
//! #         Ok(ipc::poll([ipc::Interest::readable(wake)], None).map(drop)?)
//! #     }
//! # }
//!
//! let (ours, theirs) = UnixStream::pair()?;
//!
//! // The back-end serves any virtio device, here a `Disk` with four queues.
//! let back_end = thread::spawn(move || {
//!     let mut runner = Runner::new(Arc::new(Disk), RingOptions::default());
//!     let mut transport = SocketTransport::connected(theirs).expect("a socket");
//!     let stop = ipc::SharedEventFd::new().expect("an eventfd");
//!     session::serve(&mut transport, &mut runner, stop.as_fd())
//! });
//!
//! // The front-end waits at most 20 seconds for each answer.
//! let mut front_end = FrontEnd::new(ours, Duration::from_secs(20))?;
//! let wanted = ProtocolFeatures::MQ | ProtocolFeatures::CONFIG | ProtocolFeatures::REPLY_ACK;
//! let agreed = front_end.negotiate(1 << 32 | F_PROTOCOL_FEATURES, wanted)?;
//! assert_eq!(agreed, 1 << 32 | F_PROTOCOL_FEATURES);
//! assert_eq!(front_end.get_queue_num()?, 4);
//! assert_eq!(front_end.get_config(0, 2)?, [7, 7]);
//!
//! // The front-end shares a file of 64 KiB, which is the guest's memory from address 0 on.
//! let memory = virtio::test_utils::anonymous_file(0x1_0000);
//! let table = MemoryTable::new(vec![MemoryRegion {
//!     guest_addr: 0,
//!     size: 0x1_0000,
//!     user_addr: 0x7f00_0000_0000,
//!     file_offset: 0,
//!     memory: memory.as_fd(),
//! }])?;
//! front_end.request(Request::SetMemTable(table))?;
//!
//! // When the front-end leaves, the back-end stops serving: no other front-end can come.
//! drop(front_end);
//! back_end.join().expect("it does not panic")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Source: QEMU's `docs/interop/vhost-user.rst`.

mod causes;
mod connection;
mod features;
mod front_end;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
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
pub use transport::{DropReason, Event, Incoming, SocketTransport, Transport, TransportError};
