//! Emulates PCI functions for vfio-user clients.
//!
//! A [`Device`] has a [`Function`], the part that all devices have in common: configuration space,
//! interrupts and the client's memory. [`serve()`] serves a device to one client after another.
//! This crate has two devices. [`VirtioFunction`] is any virtio device, and [`vvu::VvuDevice`] is
//! the virtio-vhost-user device.

mod blocked;
mod config_space;
mod dma;
mod function;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod intx;
mod msix;
mod padded;
mod poller;
mod serve;
mod set_irqs;
mod virtio_function;
mod virtio_pci;
pub mod vvu;

pub use function::{Device, Function};
pub use serve::serve;
pub use virtio_function::VirtioFunction;
