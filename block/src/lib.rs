//! A virtio block device (virtio 1.2, section 5.2) over disk images.
//!
//! [`Image`] is what is served, [`BlockDevice`] is what a carrier sees of it: feature bits, a
//! configuration space, and queues. Each started queue has a worker thread of its own, which takes
//! requests from its ring, hands the transfers to an I/O engine and gives the buffers back; queues
//! share nothing but the image and limits. Nothing here knows how the device reaches its driver.

#![deny(unsafe_code)]

mod cache;
mod config;
mod device;
mod engine;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod image;
mod ioctl;
mod limit;
#[cfg(test)]
mod loop_device;
mod request;
#[cfg(any(test, feature = "fuzzing"))]
pub mod testing;
mod transfer;
mod worker;

pub use device::{BlockDevice, DeviceError, MAX_QUEUES, MAX_SEGMENTS, Options};
pub use engine::EngineKind;
pub use image::{Cache, Format, Image, ImageError, OpenOptions, Qcow2Error};
pub use limit::{Rate, RateLimits};
pub use request::{ID_LEN, SECTOR_SIZE};
