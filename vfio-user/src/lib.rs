//! The vfio-user protocol. The protocol connects a process that emulates a PCI function (the
//! server) with a process that uses the function (the client) over a Unix socket.
//!
//! [`Client`] is a blocking client with a deadline for each reply. [`server::Connection`] is the
//! server's end of a connection, for use in an event loop. The server gets checked
//! [`server::Request`]s from the connection and answers them. Client and server describe the device
//! by the types in [`types`].
//!
//! A client reads the first bytes of a function's configuration space:
//!
//! ```
//! use std::os::unix::net::UnixStream;
//! use std::thread;
//! use std::time::Duration;
//!
//! use ipc::{Interest, poll};
//! use vfio_user::client::DEFAULT_TIMEOUT;
//! use vfio_user::server::{Connection, Request, ServerError};
//! use vfio_user::{Client, index};
//!
//! /// Serves a function until the client leaves. The client can read only the vendor ID.
//! fn serve(client: &mut Connection) -> Result<(), ServerError> {
//!     loop {
//!         match client.next()? {
//!             // A real server also waits for its other peers here.
//!             None => drop(poll([Interest::readable(client)], Some(Duration::from_secs(20)))),
//!             Some(Request::RegionRead { region: index::CONFIG, offset: 0, len: 2 }) => {
//!                 client.reply_data(&0x1af4u16.to_le_bytes())?;
//!             }
//!             Some(_) => client.reply_error(rustix::io::Errno::INVAL)?,
//!         }
//!     }
//! }
//!
//! let (ours, theirs) = UnixStream::pair()?;
//! let server = thread::spawn(move || serve(&mut Connection::new(theirs).expect("a socket")));
//!
//! let mut client = Client::from_stream(ours, DEFAULT_TIMEOUT)?;
//! let mut vendor = [0; 2];
//! client.region_read(index::CONFIG, 0, &mut vendor)?;
//! assert_eq!(u16::from_le_bytes(vendor), 0x1af4);
//! assert!(client.region_read(index::BAR0, 0, &mut vendor).is_err(), "it was refused");
//!
//! drop(client);
//! let end = server.join().expect("it does not panic");
//! assert!(end.is_err_and(|error| error.is_closed()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! This crate follows QEMU's `docs/interop/vfio-user.rst`. Where this document is vague, the crate
//! follows QEMU's `hw/vfio-user` and libvfio-user. Numbers are little-endian, as on every host that
//! this crate supports.

mod channel;
pub mod client;
mod codec;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod server;
pub mod types;
mod version;
mod wire;

pub use channel::ChannelError;
pub use client::{Client, ClientError};
pub use types::{
    Area, DeviceFlags, DeviceInfo, DmaFlags, IoEventFd, IrqFlags, IrqInfo, RegionFlags, RegionInfo,
    index,
};
pub use wire::{Command, HeaderError};
