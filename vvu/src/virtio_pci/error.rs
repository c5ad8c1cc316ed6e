//! What can be wrong with a virtio device.

use std::io;
use std::time::Duration;

/// Why a device cannot be driven.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VirtioError {
    /// The device has no capability of this type.
    #[error("the device has no virtio capability of type {0}")]
    MissingCapability(u8),
    /// A structure is not where it can be.
    #[error(
        "the device puts its virtio structure of type {cfg_type} ({len:#x} bytes) at {offset:#x} of \
         BAR {bar}, which has {bar_size:#x} bytes"
    )]
    OutsideBar {
        /// The structure's type.
        cfg_type: u8,
        /// Which BAR it is said to be in.
        bar: u8,
        /// Where in the BAR, in bytes.
        offset: u64,
        /// Its length in bytes.
        len: u64,
        /// The BAR's size in bytes; 0 when there is no such BAR.
        bar_size: u64,
    },
    /// A structure is too short for what has to be in it.
    #[error(
        "the device's virtio structure of type {cfg_type} has {len} bytes; {needed} are needed"
    )]
    TooShort {
        /// The structure's type.
        cfg_type: u8,
        /// Its length in bytes.
        len: u64,
        /// The least length that makes sense.
        needed: u64,
    },
    /// The device lacks features that the driver cannot do without (a bit mask).
    #[error("the device lacks virtio features {0:#x}")]
    MissingFeatures(u64),
    /// The device does not take the features that it offered.
    #[error("the device refuses virtio features {0:#x}, which it offered")]
    FeaturesRefused(u64),
    /// The device does not come to the end of a reset.
    #[error("the device did not finish its reset within {0:?}")]
    ResetTimeout(Duration),
    /// The device does not take an MSI-X vector.
    #[error("the device refuses MSI-X vector {0}")]
    VectorRefused(u16),
    /// A queue has an impossible number of entries.
    #[error("the device's queue {0} has {1} entries")]
    BadQueueSize(u16, u16),
    /// A queue's notification register is not where it can be.
    #[error("the device's queue {0} has its notification register at place {1}, out of range")]
    BadNotifyOffset(u16, u16),
    /// The function cannot be accessed.
    #[error("cannot access the device")]
    Access(#[from] io::Error),
}
