//! What is wrong with a carrier.

use std::io;

use ipc::{InheritError, ListenError};
use vhost_user::{TransportError, WithCauses};
use vvu::driver::DriverError;
use vvu::pci::PciError;

/// Why a carrier cannot be opened, or why it does not carry any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CarrierError {
    /// The arguments name no carrier.
    #[error("no carrier: use --pci, --socket-path, --virtio-pci-socket or --fd")]
    NotNamed,
    /// The VVU function cannot be driven. The text has all causes, and what to do.
    #[error("{}{}", WithCauses(.0), advice(.0))]
    Vvu(DriverError),
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

impl From<DriverError> for CarrierError {
    fn from(error: DriverError) -> Self {
        Self::Vvu(error)
    }
}

/// What to do about a VVU function that cannot be driven, to be put behind the error's text.
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
