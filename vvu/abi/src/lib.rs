//! The registers of a virtio-vhost-user (VVU) device, for its driver and its device model.
//!
//! The registers follow the virtio-vhost-user device type that was proposed for the virtio
//! specification in 2017, with the changes of the implementations in QEMU (2019) and crosvm (2022).

/// PCI device ids of the known VVU devices. The first two ids belong to QEMU's device of 2019
/// (modern and transitional), the next two to QEMU's device of 2022 (modern and transitional), and
/// the last id to crosvm's and this project's devices.
pub const PCI_DEVICE_IDS: [u16; 5] = [0x1058, 0x1017, 0x106b, 0x1016, PCI_DEVICE_ID];

/// PCI device id of this project's and crosvm's device models. The id is 0x1040 plus the virtio
/// device id 61.
pub const PCI_DEVICE_ID: u16 = 0x107d;

/// PCI subsystem id of this project's device model. crosvm's device model has the same device id,
/// but its subsystem id is equal to its device id.
pub const PCI_SUBSYSTEM_ID: u16 = 0x5655;

/// The types (`cfg_type`) of the virtio capabilities that only a VVU device has.
pub mod cfg_type {
    /// Doorbells. A write to a doorbell signals the front-end.
    pub const DOORBELL: u8 = 6;
    /// Notifications. These registers choose the MSI-X vectors of the front-end's kicks.
    pub const NOTIFICATION: u8 = 7;
    /// Shared memory, which is the front-end's RAM. This VVU capability has 16 bytes. Virtio 1.2
    /// later gave the same type to another capability, which has 24 bytes.
    pub const SHARED_MEMORY: u8 = 8;
}

/// The device's virtqueues.
pub mod queue {
    /// Carries messages from the front-end to the driver.
    pub const RX: u16 = 0;
    /// Carries messages from the driver to the front-end.
    pub const TX: u16 = 1;
    /// The number of virtqueues.
    pub const COUNT: u16 = 2;
}

/// Offsets in the device configuration space.
pub mod config {
    /// The status field, 32 bits. The bits are in [`status`](super::status).
    pub const STATUS: u64 = 0;
    /// The maximum number of vhost queues that the device can relay for, 32 bits.
    pub const MAX_VHOST_QUEUES: u64 = 4;
    /// The UUID that identifies the device to its driver, 16 bytes. All zeros mean that the device
    /// has no UUID.
    pub const UUID: u64 = 8;
    /// Length of the device configuration space in bytes.
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
    /// Selects the vhost queue whose vector the vector register holds, 16 bits.
    pub const SELECT: u64 = 0;
    /// MSI-X vector of the selected queue's kick, 16 bits.
    pub const VECTOR: u64 = 2;
    /// Length of the notification structure in bytes.
    pub const SIZE: u64 = 4;
}

/// The signal of a doorbell register. With N = `max_vhost_queues`, registers 0 to N-1 signal calls
/// of the vhost queues, registers N to 2N-1 signal errors of the vhost queues, and register 2N
/// signals the dirty log.
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
    /// The signal of doorbell number `index` of a device with `queues` vhost queues. `None` if the
    /// device does not have the doorbell.
    pub fn from_index(index: u32, queues: u16) -> Option<Self> {
        let count = u32::from(queues);
        match index {
            _ if index < count => Some(Self::Call(index as u16)),
            _ if index < 2 * count => Some(Self::Error((index - count) as u16)),
            _ if index == 2 * count => Some(Self::Log),
            _ => None,
        }
    }

    /// The number of the vhost queue that the doorbell belongs to, or 0 for the dirty log.
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
