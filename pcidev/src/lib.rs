//! Emulates PCI functions for vfio-user clients.
//!
//! [`Function`] is what all functions have in common: configuration space, MSI-X interrupts, the
//! client's memory. [`serve()`] serves it and the rest of a [`Device`] to one client after the
//! other. [`virtio_pci`] has the registers of the virtio PCI transport. Two devices are built of
//! these: [`VirtioFunction`] is any virtio device, [`vvu`] the virtio-vhost-user device.

pub mod config_space;
pub mod dma;
pub mod function;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod intx;
pub mod msix;
mod padded;
mod serve;
mod set_irqs;
pub mod signal;
mod virtio_function;
pub mod virtio_pci;
pub mod vvu;

pub use function::{Device, Function};
pub use serve::serve;
pub use virtio_function::{Kind, VirtioFunction};
