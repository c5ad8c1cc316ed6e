//! The vfio-user protocol. It carries a PCI function over a Unix socket, from the process that
//! emulates the function (the server) to the process that uses it (the client).
//!
//! [`Client`] is a blocking client with a deadline for each reply. [`server::Connection`] is the
//! server's end for an event loop: it yields checked [`server::Request`]s and takes replies. Both
//! use the plain types of [`types`].
//!
//! Source: QEMU's `docs/interop/vfio-user.rst` and, where that is vague, QEMU's `hw/vfio-user` and
//! libvfio-user. Numbers are little-endian, as on every host that this crate supports.

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
