//! What is wrong with a carrier.

use std::io;

use ipc::{InheritError, ListenError};
use vhost_user::TransportError;
use vvu::driver::DriverError;

/// Why a carrier cannot be opened, or why it does not carry any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CarrierError {
    /// The arguments name no carrier.
    #[error("no carrier: use --pci, --socket-path, --virtio-pci-socket or --fd")]
    NotNamed,
    /// The VVU function cannot be driven.
    #[error(transparent)]
    Vvu(#[from] DriverError),
    /// Nobody can listen at the path.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The inherited descriptor is not that of a socket to serve.
    #[error("--fd")]
    Inherit(#[from] InheritError),
    /// The front-end cannot be served any more.
    #[error(transparent)]
    FrontEnd(#[from] TransportError),
    /// The operating system fails, for lack of memory for instance.
    #[error(transparent)]
    System(#[from] io::Error),
}
