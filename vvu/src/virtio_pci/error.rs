//! Why a virtio device cannot be driven.

use std::io;
use std::time::Duration;

/// Why a virtio device cannot be driven.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VirtioError {
    /// The device has no virtio capability of the type that the driver needs.
    #[error("the device has no virtio capability of type {0}")]
    MissingCapability(u8),
    /// A structure of registers is not inside its BAR.
    #[error(
        "the device puts its virtio structure of type {cfg_type} ({len:#x} bytes) at {offset:#x} \
         of BAR {bar}, which has {bar_size:#x} bytes"
    )]
    OutsideBar {
        /// The structure's type.
        cfg_type: u8,
        /// The BAR that the structure's capability names.
        bar: u8,
        /// The offset in the BAR at which the structure begins, in bytes.
        offset: u64,
        /// The structure's length in bytes.
        len: u64,
        /// The size of the BAR in bytes, or 0 if the BAR does not exist.
        bar_size: u64,
    },
    /// A structure of registers is too short.
    #[error(
        "the device's virtio structure of type {cfg_type} has {len} bytes; {needed} are needed"
    )]
    TooShort {
        /// The structure's type.
        cfg_type: u8,
        /// The structure's length in bytes.
        len: u64,
        /// The length that the driver needs, in bytes.
        needed: u64,
    },
    /// The device lacks features that the driver needs. The value is the mask of the missing
    /// features.
    #[error("the device lacks virtio features {0:#x}")]
    MissingFeatures(u64),
    /// The device refuses features that the device offered. The value is the mask of these
    /// features.
    #[error("the device refuses virtio features {0:#x}, which it offered")]
    FeaturesRefused(u64),
    /// The device does not finish a reset in time.
    #[error("the device did not finish its reset within {0:?}")]
    ResetTimeout(Duration),
    /// The device does not accept an MSI-X vector.
    #[error("the device refuses MSI-X vector {0}")]
    VectorRefused(u16),
    /// A queue has an invalid number of entries.
    #[error("the device's queue {0} has {1} entries")]
    BadQueueSize(u16, u16),
    /// The notification register of a queue is unaligned, or outside of the notification structure.
    #[error("the notification register of the device's queue {0} has index {1}, out of range")]
    BadNotifyOffset(u16, u16),
    /// The PCI function cannot be accessed.
    #[error("cannot access the device")]
    Access(#[from] io::Error),
}
