//! Errors of a device in use.

use std::io;

use vhost_user::{DecodeError, TransportError};

use crate::driver::{ChannelError, DriverError};

/// The reason why a device had to be restarted or its front-end had to be disconnected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The device reports that it needs a reset.
    #[error("the device asks to be reset")]
    NeedsReset,
    /// The device does not return transmit buffers in time.
    #[error("the device did not return a transmit buffer in time")]
    TakesNoReplies,
    /// Messages cannot be exchanged with the device.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The driver cannot drive the device.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The front-end sent bytes that are not a valid message.
    #[error(transparent)]
    Message(#[from] DecodeError),
}

/// Why a device cannot be used any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VvuError {
    /// The PCI function is gone.
    #[error("{0} is gone")]
    Gone(String),
    /// The device fails again after each restart.
    #[error("the device failed again after {restarts} restarts")]
    AlwaysBroken {
        /// The number of restarts.
        restarts: u32,
        /// The last failure of the device.
        #[source]
        fault: Fault,
    },
    /// The device has failed and cannot be restarted.
    #[error(
        "cannot restart the device, which failed ({})",
        vhost_user::WithCauses(fault)
    )]
    Restart {
        /// The failure before the restart.
        fault: Fault,
        /// The reason why the restart failed.
        source: Box<DriverError>,
    },
    /// The driver cannot drive the device.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The PCI function cannot be accessed.
    #[error("cannot access the device")]
    Access(#[from] io::Error),
    /// Waiting for the device failed.
    #[error("cannot wait for the device")]
    Wait(#[source] io::Error),
}

impl From<VvuError> for TransportError {
    fn from(error: VvuError) -> Self {
        Self::Transport(error.into())
    }
}
