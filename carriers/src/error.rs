//! The errors of carriers.

use std::io;

use ipc::{InheritError, ListenError};
use vhost_user::{TransportError, WithCauses};
use vvu::driver::DriverError;
use vvu::pci::PciError;

/// The reason why a carrier cannot be opened or has failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CarrierError {
    /// The arguments name no carrier.
    #[error("no carrier: use --pci, --socket-path, --virtio-pci-socket or --fd")]
    NotNamed,
    /// The VVU function cannot be driven. The text names all causes and, if possible, a remedy.
    #[error("{}{}", WithCauses(.0), advice(.0))]
    Vvu(DriverError),
    /// The program cannot listen on a socket at the path.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The inherited descriptor is not a socket that the program can serve.
    #[error("--fd")]
    Inherit(#[from] InheritError),
    /// The transport to the front-ends has failed.
    #[error(transparent)]
    FrontEnd(#[from] TransportError),
    /// The operating system reports a failure, for example a lack of memory.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<DriverError> for CarrierError {
    fn from(error: DriverError) -> Self {
        Self::Vvu(error)
    }
}

/// The remedy for a VVU function that cannot be driven. The remedy follows the text of the error,
/// and is empty if no remedy is known.
fn advice(error: &DriverError) -> &'static str {
    match error {
        DriverError::Pci(PciError::NoIommuGroup(_) | PciError::NoInterruptRemapping(_)) => {
            "; QEMU has a virtual IOMMU that does: -device intel-iommu,intremap=on"
        }
        DriverError::Pci(PciError::NoVfioUserServer { .. }) => {
            "; start vvu-proxy with --vfio-user-path first"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_comes_behind_all_causes() {
        let address = "00:10.0".parse().unwrap();
        let no_iommu = DriverError::Pci(PciError::NoIommuGroup(address));
        let text = CarrierError::from(no_iommu).to_string();
        assert!(
            text.ends_with("; QEMU has a virtual IOMMU that does: -device intel-iommu,intremap=on")
        );
        let no_server = DriverError::Pci(PciError::NoVfioUserServer {
            path: "vvu.sock".into(),
            source: io::ErrorKind::NotFound.into(),
        });
        let text = CarrierError::from(no_server).to_string();
        let expected = "there is no vfio-user server at vvu.sock: entity not found; start \
                        vvu-proxy with --vfio-user-path first";
        assert_eq!(text, expected);
        let text = CarrierError::from(DriverError::NotStarted).to_string();
        assert_eq!(text, "the device is not started");
    }
}
