//! What can be wrong with a VVU device.

use std::io;
use std::time::Duration;

use super::{ChannelError, DmaError};
use crate::pci::{Identity, PciError};
use crate::virtio_pci::VirtioError;

/// Why a VVU device cannot be driven.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// The function is not a VVU device.
    #[error("{name} is not a virtio-vhost-user device but {identity}")]
    NotVvu {
        /// The function's address.
        name: String,
        /// What it is.
        identity: Identity,
        /// The capability that it lacks, if it could be one by its ids.
        #[source]
        missing: Option<VirtioError>,
    },
    /// The function cannot be used.
    #[error(transparent)]
    Pci(#[from] PciError),
    /// The device cannot be driven as a virtio device.
    #[error(transparent)]
    Virtio(#[from] VirtioError),
    /// The device's queues are broken.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The device cannot interrupt for all queues.
    #[error("the device has {available} MSI-X vectors; {needed} are needed")]
    TooFewVectors {
        /// How many are needed: 3 and one for each queue.
        needed: u32,
        /// How many there are.
        available: u16,
    },
    /// The device has not enough vhost queues.
    #[error("the device relays for {available} vhost queues; {needed} are needed")]
    TooFewQueues {
        /// How many the back-end has.
        needed: u16,
        /// How many the device has.
        available: u32,
    },
    /// The device has not enough doorbells.
    #[error("the device has no doorbells for {needed} vhost queues")]
    TooFewDoorbells {
        /// How many are needed.
        needed: u16,
    },
    /// The device has not the virtqueues that carry messages.
    #[error("the device has {0} virtqueues, not the 2 that carry messages")]
    TooFewVirtqueues(u16),
    /// The device does not take the vector of a notification.
    #[error("the device refuses MSI-X vector {vector} for kicks of vhost queue {queue}")]
    NotificationRefused {
        /// Which vhost queue.
        queue: u16,
        /// The vector.
        vector: u16,
    },
    /// The device does not let go of the front-end.
    #[error("the device did not drop the front-end within {0:?}")]
    DisconnectTimeout(Duration),
    /// There is no memory for the device.
    #[error(transparent)]
    Dma(#[from] DmaError),
    /// The front-end's memory is nowhere.
    #[error("the device's shared memory is in BAR {bar}, which has {size:#x} bytes")]
    BadWindow {
        /// Which BAR it is said to be in.
        bar: u8,
        /// That BAR's size in bytes.
        size: u64,
    },
    /// The device is not started.
    #[error("the device is not started")]
    NotStarted,
    /// MSI-X cannot be set up.
    #[error("cannot set MSI-X vectors")]
    Vectors(#[source] io::Error),
    /// The function cannot be accessed.
    #[error("cannot access the device")]
    Access(#[from] io::Error),
}
