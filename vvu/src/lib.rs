//! Drives a virtio-vhost-user (VVU) PCI function and carries vhost-user messages through the
//! function.
//!
//! The crate has four layers. [`VvuTransport`] carries the messages of front-ends and uses a
//! [`driver`] of a VVU function. The driver uses the function as a virtio device ([`virtio_pci`]),
//! and [`pci`] gives access to the function.
//!
//! In a device VM, this example serves a `device` to the front-ends of the sibling VM:
//!
//! ```no_run
//! use std::os::fd::BorrowedFd;
//! use std::sync::Arc;
//!
//! use virtio::{Device, RingOptions, Runner};
//! use virtio::memory::MemoryFiles;
//! use vvu::VvuTransport;
//!
//! fn serve(
//!     device: Arc<dyn Device>,
//!     stop: BorrowedFd<'_>,
//! ) -> Result<(), Box<dyn std::error::Error>> {
//!     let mut runner = Runner::new(device, RingOptions::default());
//!     runner.prepare()?;
//!     // The function has to be bound to vfio-pci. `vfio-user:/tmp/vvu0.sock` is an address, too.
//!     let files = MemoryFiles::default();
//!     let function = vvu::driver::open("0000:00:10.0", files)?;
//!     // With `None`, the identity of the device selects the dialect.
//!     let dialect = None;
//!     let mut transport = VvuTransport::new(function, runner.queue_count(), dialect)?;
//!     vhost_user::session::serve(&mut transport, &mut runner, stop)?;
//!     Ok(())
//! }
//! ```

pub mod driver;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod pci;
mod transport;
pub mod virtio_pci;

pub use transport::{Fault, VvuError, VvuTransport};
