//! Registers and capabilities of the virtio PCI transport (virtio 1.2, section 4.1), for drivers
//! and for devices.

/// PCI vendor id of every virtio device.
pub const VENDOR_ID: u16 = 0x1af4;

/// The difference between the PCI device id and the virtio device id of a modern device.
pub const MODERN_ID_BASE: u16 = 0x1040;

/// The MSI-X vector number with the meaning "no interrupt".
pub const NO_VECTOR: u16 = 0xffff;

/// Offsets in PCI configuration space (PCI 3.0, section 6.1).
pub mod config_space {
    /// Vendor id, 16 bits.
    pub const VENDOR_ID: usize = 0x00;
    /// Device id, 16 bits.
    pub const DEVICE_ID: usize = 0x02;
    /// Command register, 16 bits.
    pub const COMMAND: usize = 0x04;
    /// Status register, 16 bits.
    pub const STATUS: usize = 0x06;
    /// Revision id, 8 bits.
    pub const REVISION: usize = 0x08;
    /// Programming interface, subclass and class, 8 bits each.
    pub const CLASS: usize = 0x09;
    /// Header type, 8 bits.
    pub const HEADER_TYPE: usize = 0x0e;
    /// The six base address registers, 32 bits each.
    pub const BARS: usize = 0x10;
    /// Subsystem vendor id, 16 bits.
    pub const SUBSYSTEM_VENDOR_ID: usize = 0x2c;
    /// Subsystem id, 16 bits.
    pub const SUBSYSTEM_ID: usize = 0x2e;
    /// Offset of the first capability in configuration space, 8 bits.
    pub const CAPABILITIES: usize = 0x34;
    /// Interrupt pin, 8 bits.
    pub const INTERRUPT_PIN: usize = 0x3d;

    /// Command: the function answers accesses to its memory BARs.
    pub const COMMAND_MEMORY: u16 = 0x2;
    /// Command: the function may access memory itself (bus master).
    pub const COMMAND_BUS_MASTER: u16 = 0x4;
    /// Status: the function has a capability list.
    pub const STATUS_CAPABILITIES: u16 = 0x10;

    /// Capability id of vendor-specific capabilities. All virtio capabilities have this id.
    pub const CAP_VENDOR: u8 = 0x09;
    /// Capability id of MSI-X.
    pub const CAP_MSIX: u8 = 0x11;
}

/// Kinds of virtio capability, the `cfg_type` field (virtio 1.2, section 4.1.4).
pub mod cfg_type {
    /// Common configuration.
    pub const COMMON: u8 = 1;
    /// Notifications of queues.
    pub const NOTIFY: u8 = 2;
    /// Interrupt status.
    pub const ISR: u8 = 3;
    /// Device-specific configuration.
    pub const DEVICE: u8 = 4;
    /// Access to BARs through configuration space.
    pub const PCI: u8 = 5;
}

/// Offsets in the common configuration structure (virtio 1.2, section 4.1.4.3).
pub mod common {
    /// Selects 32 of the device's feature bits for [`DEVICE_FEATURE`], 32 bits.
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    /// The device's feature bits that [`DEVICE_FEATURE_SELECT`] selects, 32 bits.
    pub const DEVICE_FEATURE: u64 = 0x04;
    /// Selects 32 of the driver's feature bits for [`DRIVER_FEATURE`], 32 bits.
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    /// The driver's feature bits that [`DRIVER_FEATURE_SELECT`] selects, 32 bits.
    pub const DRIVER_FEATURE: u64 = 0x0c;
    /// MSI-X vector of configuration changes, 16 bits.
    pub const CONFIG_MSIX_VECTOR: u64 = 0x10;
    /// Number of queues, 16 bits.
    pub const NUM_QUEUES: u64 = 0x12;
    /// Device status, 8 bits.
    pub const DEVICE_STATUS: u64 = 0x14;
    /// A number that changes with every change of the device-specific configuration, 8 bits.
    pub const CONFIG_GENERATION: u64 = 0x15;
    /// Selects the queue that all registers with a higher offset in this structure refer to, 16
    /// bits.
    pub const QUEUE_SELECT: u64 = 0x16;
    /// Number of descriptors of the selected queue, 16 bits.
    pub const QUEUE_SIZE: u64 = 0x18;
    /// MSI-X vector of the selected queue, 16 bits.
    pub const QUEUE_MSIX_VECTOR: u64 = 0x1a;
    /// Whether the selected queue is enabled, 16 bits.
    pub const QUEUE_ENABLE: u64 = 0x1c;
    /// Offset of the selected queue's register in the notification structure, in units of the
    /// multiplier, 16 bits.
    pub const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    /// Address of the selected queue's descriptor table, 64 bits.
    pub const QUEUE_DESC: u64 = 0x20;
    /// Address of the selected queue's driver area, 64 bits.
    pub const QUEUE_DRIVER: u64 = 0x28;
    /// Address of the selected queue's device area, 64 bits.
    pub const QUEUE_DEVICE: u64 = 0x30;
    /// Length of the common configuration structure in bytes, without the optional fields
    /// `queue_notify_data` and `queue_reset`.
    pub const SIZE: u64 = 0x38;
}

/// Bits of the device status register (virtio 1.2, section 2.1).
pub mod status {
    /// The driver has found the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The driver knows how to drive the device.
    pub const DRIVER: u8 = 2;
    /// The driver is ready.
    pub const DRIVER_OK: u8 = 4;
    /// Feature negotiation is complete.
    pub const FEATURES_OK: u8 = 8;
    /// The device has failed and needs a reset.
    pub const NEEDS_RESET: u8 = 0x40;
    /// The driver has given up on the device.
    pub const FAILED: u8 = 0x80;
}

/// Bits of the interrupt status register.
pub mod isr {
    /// A queue has used buffers.
    pub const QUEUE: u8 = 1;
    /// The configuration changed.
    pub const CONFIG: u8 = 2;
}

/// A virtio capability (virtio 1.2, section 4.1.4): the BAR of a structure, and the structure's
/// offset in the BAR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capability {
    /// The kind of the structure, one of the constants in [`cfg_type`].
    pub cfg_type: u8,
    /// The number of the BAR that holds the structure. Numbers above 5 are reserved.
    pub bar: u8,
    /// Offset of the structure in the BAR, in bytes.
    pub offset: u32,
    /// Length of the structure, in bytes.
    pub length: u32,
    /// Distance in bytes between two adjacent registers of a notification structure or doorbell
    /// structure. `None` in a capability without a multiplier.
    pub multiplier: Option<u32>,
}

impl Capability {
    /// Length in bytes of a capability without the multiplier.
    pub const SIZE: u8 = 16;
    /// Length in bytes of a capability with the multiplier.
    pub const SIZE_WITH_MULTIPLIER: u8 = 20;

    /// Reads a capability from its bytes, which begin with the capability id. `None` if the
    /// capability is not vendor-specific, or is shorter than [`Capability::SIZE`].
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let len = usize::from(*bytes.get(2)?);
        let body = bytes.get(..len)?;
        if body.len() < usize::from(Self::SIZE) || body[0] != config_space::CAP_VENDOR {
            return None;
        }
        Some(Self {
            cfg_type: body[3],
            bar: body[4],
            offset: le32(body, 8)?,
            length: le32(body, 12)?,
            multiplier: le32(body, 16),
        })
    }

    /// The capability's bytes, with 0 as the link to the next capability.
    pub fn encode(&self) -> Vec<u8> {
        let len = match self.multiplier {
            Some(_) => Self::SIZE_WITH_MULTIPLIER,
            None => Self::SIZE,
        };
        let mut bytes = vec![
            config_space::CAP_VENDOR,
            0,
            len,
            self.cfg_type,
            self.bar,
            0,
            0,
            0,
        ];
        bytes.extend(self.offset.to_le_bytes());
        bytes.extend(self.length.to_le_bytes());
        bytes.extend(
            self.multiplier
                .iter()
                .flat_map(|multiplier| multiplier.to_le_bytes()),
        );
        bytes
    }
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..at + 4)?
        .try_into()
        .ok()
        .map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOORBELL: [u8; 20] = [
        0x09, 0x00, 0x14, 0x06, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x20, 0x00,
        0x00, 0x04, 0x00, 0x00, 0x00,
    ];

    #[test]
    fn an_encoded_capability_decodes_to_itself() {
        let doorbell = Capability::decode(&DOORBELL).unwrap();
        let expected = Capability {
            cfg_type: 6,
            bar: 2,
            offset: 0,
            length: 0x2000,
            multiplier: Some(4),
        };
        assert_eq!(doorbell, expected);
        assert_eq!(doorbell.encode(), DOORBELL);
        let plain = Capability {
            multiplier: None,
            ..doorbell
        };
        assert_eq!(Capability::decode(&plain.encode()), Some(plain));
    }

    #[test]
    fn capabilities_that_are_short_or_not_vendor_specific_are_not_read() {
        let mut bytes = DOORBELL;
        assert_eq!(Capability::decode(&bytes[..19]), None, "cut off");
        bytes[2] = 15;
        assert_eq!(Capability::decode(&bytes), None, "says it is too short");
        bytes[2] = 20;
        bytes[0] = 0x11;
        assert_eq!(Capability::decode(&bytes), None, "not vendor-specific");
        assert_eq!(Capability::decode(&[]), None);
    }
}
