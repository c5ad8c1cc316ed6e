//! Why a VVU device cannot be driven.

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
        /// The identity of the function.
        identity: Identity,
        /// The virtio capability that is missing. `None` if the function's ids are not those of a
        /// VVU device.
        #[source]
        missing: Option<VirtioError>,
    },
    /// The function cannot be used.
    #[error(transparent)]
    Pci(#[from] PciError),
    /// The device cannot be driven as a virtio device.
    #[error(transparent)]
    Virtio(#[from] VirtioError),
    /// Messages cannot be exchanged with the device.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The device does not have an MSI-X vector for each queue.
    #[error("the device has {available} MSI-X vectors; {needed} are needed")]
    TooFewVectors {
        /// The number of vectors that the driver needs, which is 3 plus the number of vhost queues.
        needed: u32,
        /// The number of vectors that the device has.
        available: u16,
    },
    /// The device has too few vhost queues.
    #[error("the device relays for {available} vhost queues; {needed} are needed")]
    TooFewQueues {
        /// The number of vhost queues that the back-end has.
        needed: u16,
        /// The number of vhost queues that the device has.
        available: u32,
    },
    /// The device has too few doorbells.
    #[error("the device has no doorbells for {needed} vhost queues")]
    TooFewDoorbells {
        /// The number of vhost queues that need a doorbell.
        needed: u16,
    },
    /// The device lacks one of the virtqueues that carry messages.
    #[error("the device has {0} virtqueues; messages need 2")]
    TooFewVirtqueues(u16),
    /// The device does not accept the vector for the kicks of a queue.
    #[error("the device refuses MSI-X vector {vector} for kicks of vhost queue {queue}")]
    NotificationRefused {
        /// The number of the vhost queue.
        queue: u16,
        /// The MSI-X vector that the device refuses.
        vector: u16,
    },
    /// The device does not disconnect the front-end in time.
    #[error("the device did not drop the front-end within {0:?}")]
    DisconnectTimeout(Duration),
    /// Memory for messages cannot be shared with the device.
    #[error(transparent)]
    Dma(#[from] DmaError),
    /// According to the device, the window for the front-end's memory begins beyond the end of its
    /// BAR.
    #[error("the memory window begins behind the end of BAR {bar}, which has {size:#x} bytes")]
    BadWindow {
        /// The BAR of the window.
        bar: u8,
        /// The size of the BAR in bytes.
        size: u64,
    },
    /// The device has not been started.
    #[error("the device is not started")]
    NotStarted,
    /// MSI-X cannot be set up.
    #[error("cannot set MSI-X vectors")]
    Vectors(#[source] io::Error),
    /// The PCI function cannot be accessed.
    #[error("cannot access the device")]
    Access(#[from] io::Error),
}
