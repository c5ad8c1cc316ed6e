//! What can go wrong with a device in use.

use std::io;

use vhost_user::{DecodeError, TransportError};

use crate::driver::{ChannelError, DriverError};

/// Why a device or its front-end had to be dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The device says that it is broken.
    #[error("the device asks to be reset")]
    NeedsReset,
    /// The device does not return buffers in time.
    #[error("the device takes no replies")]
    TakesNoReplies,
    /// The queues of messages are broken.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The device does not do what it is told.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The front-end sent what is not a message.
    #[error(transparent)]
    Message(#[from] DecodeError),
}

/// Why a device cannot be used any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VvuError {
    /// The function is gone.
    #[error("{0} is gone")]
    Gone(String),
    /// Restarting the device does not help.
    #[error("the device failed {restarts} times in a row")]
    AlwaysBroken {
        /// How often it was restarted.
        restarts: u32,
        /// How it failed at last.
        #[source]
        fault: Fault,
    },
    /// The device, which has failed, does not start again.
    #[error(
        "cannot restart the device, which failed ({})",
        vhost_user::WithCauses(fault)
    )]
    Restart {
        /// How it failed.
        fault: Fault,
        /// Why it does not start.
        source: Box<DriverError>,
    },
    /// The device does not do what it is told.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The function cannot be accessed.
    #[error("cannot access the device")]
    Access(#[from] io::Error),
    /// There is no waiting for the device.
    #[error("cannot wait for the device")]
    Wait(#[source] io::Error),
}

impl From<VvuError> for TransportError {
    fn from(error: VvuError) -> Self {
        Self::Transport(error.into())
    }
}
