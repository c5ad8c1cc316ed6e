//! A virtio block device (virtio 1.2, section 5.2) over disk images.
//!
//! A [`BlockDevice`] serves an [`Image`]. A carrier (transport, for example vhost-user) connects
//! the device to drivers. The carrier uses the feature bits, the configuration space and the queues
//! of the device. Each started queue has its own worker thread, which takes requests from the
//! vring, hands the transfers to an I/O engine and gives the buffers back. Queues share only the
//! image, the write cache and the limits. This crate does not depend on the kind of carrier.

#![deny(unsafe_code)]

mod cache;
mod config;
mod device;
mod disk;
mod engine;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod image;
mod ioctl;
mod limit;
#[cfg(test)]
mod loop_device;
mod operation;
mod request;
#[cfg(any(test, feature = "fuzzing"))]
pub mod testing;
mod worker;

pub use device::{BlockDevice, DeviceError, MAX_QUEUES, MAX_SEGMENTS, Options};
pub use engine::EngineKind;
pub use image::{Cache, Format, Image, ImageError, OpenOptions, Qcow2Error};
pub use limit::{Rate, RateLimits};
pub use operation::SECTOR_SIZE;
pub use request::ID_LEN;
