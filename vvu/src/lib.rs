//! Drives a virtio-vhost-user (VVU) PCI function and carries vhost-user through it.
//!
//! From the outside in: [`VvuTransport`] carries the messages of front-ends that come through a
//! [`driver`] of a VVU function. It drives the function as a virtio device ([`virtio_pci`]), which
//! it reaches through [`pci`].

pub mod driver;
pub mod pci;
mod transport;
pub mod virtio_pci;

pub use transport::{Fault, VvuError, VvuTransport};
