//! The registers of a virtio-vhost-user device, as its driver and its device model need them.
//!
//! Source: the virtio-vhost-user device type proposed for the virtio specification in 2017, with
//! what the QEMU (2019) and crosvm (2022) implementations made of it.

/// PCI device ids under which VVU devices were seen: QEMU (2019) modern and transitional, QEMU
/// (2022) modern and transitional, crosvm and ours.
pub const PCI_DEVICE_IDS: [u16; 5] = [0x1058, 0x1017, 0x106b, 0x1016, PCI_DEVICE_ID];

/// PCI device id of our device model and of crosvm's: virtio device id 61.
pub const PCI_DEVICE_ID: u16 = 0x107d;

/// PCI subsystem id that tells our device model from crosvm's, which repeats its device id there.
pub const PCI_SUBSYSTEM_ID: u16 = 0x5655;

/// The virtio capabilities that only a VVU device has; values of `cfg_type`.
pub mod cfg_type {
    /// Doorbells: a write to one signals the front-end.
    pub const DOORBELL: u8 = 6;
    /// Notifications: which MSI-X vector a front-end's kick raises.
    pub const NOTIFICATION: u8 = 7;
    /// Shared memory: the front-end's RAM. A plain 16-byte capability, unlike the one that virtio
    /// 1.2 later gave this number.
    pub const SHARED_MEMORY: u8 = 8;
}

/// The device's virtqueues.
pub mod queue {
    /// Carries messages from the front-end to the driver.
    pub const RX: u16 = 0;
    /// Carries messages from the driver to the front-end.
    pub const TX: u16 = 1;
    /// How many there are.
    pub const COUNT: u16 = 2;
}

/// Offsets in the device configuration space.
pub mod config {
    /// See [`status`](super::status), 32 bits.
    pub const STATUS: u64 = 0;
    /// How many vhost queues the device can relay for, 32 bits.
    pub const MAX_VHOST_QUEUES: u64 = 4;
    /// Identifies the device to its driver, 16 bytes; all zero: no identity.
    pub const UUID: u64 = 8;
    /// Length of the space in bytes.
    pub const SIZE: u64 = 24;
}

/// Bits of the configuration space's status field.
pub mod status {
    /// Set by the driver when it is ready for a front-end.
    pub const BACKEND_UP: u32 = 1;
    /// Set by the device when a front-end is connected.
    pub const FRONTEND_UP: u32 = 2;
}

/// Offsets in the notification structure.
pub mod notification {
    /// Selects the vhost queue that the vector register is about, 16 bits.
    pub const SELECT: u64 = 0;
    /// MSI-X vector of the selected queue's kick, 16 bits.
    pub const VECTOR: u64 = 2;
    /// Length of the structure in bytes.
    pub const SIZE: u64 = 4;
}

/// What a doorbell register signals. With N = `max_vhost_queues`: 0 to N-1 the calls, N to 2N-1 the
/// errors of the vhost queues, 2N the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doorbell {
    /// The vhost queue has used buffers.
    Call(u16),
    /// The vhost queue is broken.
    Error(u16),
    /// The dirty log changed.
    Log,
}

impl Doorbell {
    /// What doorbell number `index` of a device with `queues` vhost queues signals.
    pub fn from_index(index: u32, queues: u16) -> Option<Self> {
        let count = u32::from(queues);
        match index {
            _ if index < count => Some(Self::Call(index as u16)),
            _ if index < 2 * count => Some(Self::Error((index - count) as u16)),
            _ if index == 2 * count => Some(Self::Log),
            _ => None,
        }
    }

    /// Which vhost queue it is about; 0 for the log.
    pub fn queue(self) -> u16 {
        match self {
            Self::Call(queue) | Self::Error(queue) => queue,
            Self::Log => 0,
        }
    }

    /// The doorbell's number on a device with `queues` vhost queues.
    pub fn index(self, queues: u16) -> u32 {
        match self {
            Self::Call(queue) => u32::from(queue),
            Self::Error(queue) => u32::from(queues) + u32::from(queue),
            Self::Log => 2 * u32::from(queues),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doorbells_are_numbered_calls_first() {
        for (index, doorbell) in [
            (0, Some(Doorbell::Call(0))),
            (15, Some(Doorbell::Call(15))),
            (16, Some(Doorbell::Error(0))),
            (31, Some(Doorbell::Error(15))),
            (32, Some(Doorbell::Log)),
            (33, None),
            (u32::MAX, None),
        ] {
            assert_eq!(Doorbell::from_index(index, 16), doorbell);
            if let Some(doorbell) = doorbell {
                assert_eq!(doorbell.index(16), index);
            }
        }
    }
}
