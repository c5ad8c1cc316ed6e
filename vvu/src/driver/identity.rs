//! Recognises VVU devices.

use std::sync::Arc;

use virtio::memory::MemoryFiles;
use virtio::pci::{Capability, VENDOR_ID};
use vvu_abi::{PCI_DEVICE_IDS, cfg_type};

use super::DriverError;
use crate::pci::{self, Identity, PciError, PciFunction};
use crate::virtio_pci::{Capabilities, VirtioError};

/// Opens a VVU function by its address. [`pci::open`] describes the arguments.
///
/// # Errors
///
/// [`DriverError::NotVvu`], or [`PciError`] in a [`DriverError::Pci`].
pub fn open(address: &str, files: MemoryFiles) -> Result<Arc<dyn PciFunction>, DriverError> {
    pci::open(address, may_be_vvu, files).map_err(|error| match error {
        PciError::Unwanted { address, identity } => DriverError::NotVvu {
            name: address.to_string(),
            identity,
            missing: None,
        },
        error => error.into(),
    })
}

/// Reads the identity of a function and checks that it is a VVU device.
pub fn identify(function: &dyn PciFunction) -> Result<(Capabilities, Identity), DriverError> {
    let identity = Identity::read(function).map_err(DriverError::Access)?;
    let not_vvu = |missing| DriverError::NotVvu {
        name: function.name(),
        identity,
        missing,
    };
    if !may_be_vvu(&identity) {
        return Err(not_vvu(None));
    }
    let capabilities = Capabilities::read(function).map_err(DriverError::Access)?;
    for cfg_type in [cfg_type::DOORBELL, cfg_type::NOTIFICATION] {
        let found = capabilities.find(cfg_type);
        found.map_err(|error| not_vvu(Some(error)))?;
    }
    shared_memory(&capabilities).map_err(|error| not_vvu(Some(error)))?;
    Ok((capabilities, identity))
}

/// The capability for the front-end's memory, which has 16 bytes. Virtio 1.2 gave the same type to
/// another capability, which has 24 bytes. Only the longer capability is decoded with a multiplier,
/// so this function skips capabilities with a multiplier.
pub fn shared_memory(capabilities: &Capabilities) -> Result<&Capability, VirtioError> {
    capabilities.find_like(cfg_type::SHARED_MEMORY, |cap| cap.multiplier.is_none())
}

/// Whether a function with this identity may be a VVU device. Other virtio devices use the same
/// ids, so the capabilities have to be checked too.
fn may_be_vvu(identity: &Identity) -> bool {
    identity.vendor == VENDOR_ID && PCI_DEVICE_IDS.contains(&identity.device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vvu_device_has_a_known_device_id_and_the_virtio_vendor_id() {
        let may_be = |vendor, device| {
            may_be_vvu(&Identity {
                vendor,
                device,
                ..Identity::default()
            })
        };
        for device in PCI_DEVICE_IDS {
            assert!(may_be(0x1af4, device));
            assert!(!may_be(0x8086, device));
        }
        assert!(!may_be(0x1af4, 0x1042));
    }
}
