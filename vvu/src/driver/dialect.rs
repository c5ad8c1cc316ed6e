//! The differences between VVU devices.

use std::fmt;
use std::str::FromStr;

use vvu_abi as abi;

use crate::pci::Identity;

/// The behaviour of one kind of VVU device, in the respects in which the kinds differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// The dialect's name on the command line.
    pub name: &'static str,
    /// The layout of the front-end's memory regions in the memory window.
    pub layout: LayoutRule,
    /// How the device tells the driver that the front-end left.
    pub peer_loss: PeerLoss,
    /// Whether the device has doorbells that report a broken queue to the front-end.
    pub error_doorbells: bool,
}

/// The layout of a memory table's regions in the memory window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutRule {
    /// Each region begins where the previous region ends.
    Packed,
    /// Before each region there is a gap, whose length is the `mmap_offset` of the region. The gap
    /// is there because the device maps each region's file from the start of the file.
    WithOffsets,
    /// Each region begins where the previous region ends. The first region of a new table begins
    /// where the previous table of the same front-end ends.
    Growing,
}

/// How the device tells the driver that the front-end left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerLoss {
    /// The device clears the status bits and raises a configuration interrupt.
    Status,
    /// The device returns an empty receive buffer. The driver then has to reset the device.
    EmptyMessage,
}

impl Dialect {
    /// The dialect of this project's device model.
    pub const OURS: Self = Self {
        name: "ours",
        layout: LayoutRule::WithOffsets,
        peer_loss: PeerLoss::Status,
        error_doorbells: true,
    };
    /// The dialect that was proposed for the virtio specification in 2017.
    pub const SPEC: Self = Self {
        name: "spec",
        layout: LayoutRule::Packed,
        ..Self::OURS
    };
    /// The dialect of QEMU's devices of 2019 and 2022.
    pub const QEMU: Self = Self {
        name: "qemu",
        error_doorbells: false,
        ..Self::OURS
    };
    /// The dialect of crosvm's device of 2022.
    pub const CROSVM: Self = Self {
        name: "crosvm",
        layout: LayoutRule::Growing,
        peer_loss: PeerLoss::EmptyMessage,
        error_doorbells: false,
    };
    /// All dialects.
    pub const ALL: [Self; 4] = [Self::OURS, Self::SPEC, Self::QEMU, Self::CROSVM];

    /// The dialect of a device with this identity. A device that follows the proposed specification
    /// of 2017 has the same identity as QEMU's devices, and therefore gets QEMU's dialect.
    pub fn of(identity: &Identity) -> Self {
        match (identity.device, identity.subsystem) {
            (abi::PCI_DEVICE_ID, abi::PCI_SUBSYSTEM_ID) => Self::OURS,
            (abi::PCI_DEVICE_ID, _) => Self::CROSVM,
            _ => Self::QEMU,
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The error for an unknown name of a dialect.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a dialect; the dialects are ours, spec, qemu and crosvm")]
pub struct UnknownDialect(String);

impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(name: &str) -> Result<Self, UnknownDialect> {
        let found = Self::ALL.into_iter().find(|dialect| dialect.name == name);
        found.ok_or_else(|| UnknownDialect(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_chooses_the_dialect() {
        for (device, subsystem, dialect) in [
            (0x107d, abi::PCI_SUBSYSTEM_ID, Dialect::OURS),
            (0x107d, 0x107d, Dialect::CROSVM),
            (0x1058, 0x1100, Dialect::QEMU),
            (0x1017, 24, Dialect::QEMU),
            (0x106b, 0x1100, Dialect::QEMU),
            (0x1016, 43, Dialect::QEMU),
        ] {
            let identity = Identity {
                vendor: 0x1af4,
                device,
                subsystem,
                class: 0x00_ff00,
            };
            assert_eq!(Dialect::of(&identity), dialect, "{identity}");
        }
    }

    #[test]
    fn a_dialect_is_read_from_its_name() {
        for dialect in Dialect::ALL {
            assert_eq!(dialect.to_string().parse(), Ok(dialect));
        }
        let error = "OURS".parse::<Dialect>().unwrap_err().to_string();
        assert_eq!(
            error,
            "\"OURS\" is not a dialect; the dialects are ours, spec, qemu and crosvm"
        );
    }
}
