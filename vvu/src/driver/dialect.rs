//! What is not the same with all VVU devices.

use std::fmt;
use std::str::FromStr;

use vvu_abi as abi;

use crate::pci::Identity;

/// How a VVU device does what is not the same with all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// What it is called.
    pub name: &'static str,
    /// Where in the memory window a region is.
    pub layout: LayoutRule,
    /// How the driver learns that the front-end left.
    pub peer_loss: PeerLoss,
    /// Whether the front-end can be told of a broken queue.
    pub error_doorbells: bool,
}

/// Where in the memory window the regions of a memory table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutRule {
    /// One right behind the other.
    Packed,
    /// Each is behind the one before it by its own `mmap_offset`, since the device maps each
    /// region's file from its start.
    WithOffsets,
    /// One right behind the other, and each table right behind the one before it, as long as the
    /// front-end is the same.
    Growing,
}

/// How the driver learns that the front-end left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerLoss {
    /// The device clears the status bits and raises a configuration interrupt.
    Status,
    /// The device returns a receive buffer without a byte in it. It has to be reset then.
    EmptyMessage,
}

impl Dialect {
    /// Our own device model.
    pub const OURS: Self = Self {
        name: "ours",
        layout: LayoutRule::WithOffsets,
        peer_loss: PeerLoss::Status,
        error_doorbells: true,
    };
    /// The device type as it was proposed for the virtio specification in 2017.
    pub const SPEC: Self = Self {
        name: "spec",
        layout: LayoutRule::Packed,
        ..Self::OURS
    };
    /// QEMU's devices of 2019 and 2022.
    pub const QEMU: Self = Self {
        name: "qemu",
        error_doorbells: false,
        ..Self::OURS
    };
    /// crosvm's device of 2022.
    pub const CROSVM: Self = Self {
        name: "crosvm",
        layout: LayoutRule::Growing,
        peer_loss: PeerLoss::EmptyMessage,
        error_doorbells: false,
    };
    /// All of them.
    pub const ALL: [Self; 4] = [Self::OURS, Self::SPEC, Self::QEMU, Self::CROSVM];

    /// The dialect that a device with this identity has. Nothing tells a device that keeps to the
    /// specification from QEMU's.
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

/// A name that no dialect has.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no dialect: take ours, spec, qemu or crosvm")]
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
    fn identities_choose_dialects() {
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
    fn names_choose_dialects() {
        for dialect in Dialect::ALL {
            assert_eq!(dialect.to_string().parse(), Ok(dialect));
        }
        let error = "OURS".parse::<Dialect>().unwrap_err().to_string();
        assert_eq!(
            error,
            "\"OURS\" is no dialect: take ours, spec, qemu or crosvm"
        );
    }
}
