//! The vfio-user protocol, which carries a PCI function from the process that emulates it (the
//! server) to the one that uses it (the client) over a Unix socket.
//!
//! [`Client`] is a blocking client with a deadline on each reply. [`server::Connection`] is the
//! server's end for an event loop: it yields checked [`server::Request`]s and takes replies. What
//! both share are the plain types of [`types`].
//!
//! Source: QEMU's `docs/interop/vfio-user.rst`, where it is vague QEMU's `hw/vfio-user` and
//! libvfio-user. Numbers are little-endian, as on every host this runs on.

mod channel;
pub mod client;
mod codec;
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
