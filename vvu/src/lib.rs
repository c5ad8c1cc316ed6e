//! Drives a virtio-vhost-user (VVU) PCI function and speaks vhost-user as a back-end.
//!
//! From the outside in: a [`session`] is the back-end's side of a vhost-user conversation. It has
//! one over any [`transport`], of which there are two: a Unix socket, and a VVU function driven by
//! [`driver`] through [`pci`].

pub mod abi;
pub mod driver;
pub mod pci;
pub mod session;
pub mod transport;
pub mod vhost_user;
pub mod virtio_pci;
