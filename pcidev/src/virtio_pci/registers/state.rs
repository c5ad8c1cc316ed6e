//! The register values that the driver wrote.

use virtio::pci::{NO_VECTOR, common};

/// The register values that the driver wrote. A reset sets them back to the initial values.
#[derive(Debug)]
pub(super) struct State {
    pub(super) device_feature_select: u32,
    pub(super) driver_feature_select: u32,
    pub(super) driver_features: u64,
    pub(super) config_vector: u16,
    pub(super) status: u8,
    pub(super) queue_select: u16,
    pub(super) queues: Vec<Queue>,
}

#[derive(Clone, Debug)]
pub(super) struct Queue {
    pub(super) size: u16,
    pub(super) vector: u16,
    pub(super) enabled: bool,
    pub(super) desc: u64,
    pub(super) driver: u64,
    pub(super) device: u64,
}

impl State {
    pub(super) fn new(queues: u16, queue_size: u16) -> Self {
        let queue = Queue {
            size: queue_size,
            vector: NO_VECTOR,
            enabled: false,
            desc: 0,
            driver: 0,
            device: 0,
        };
        Self {
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            config_vector: NO_VECTOR,
            status: 0,
            queue_select: 0,
            queues: vec![queue; usize::from(queues)],
        }
    }
}

impl Queue {
    /// Writes an address, or the lower or upper half of an address.
    pub(super) fn write_address(&mut self, offset: u64, len: usize, value: u64) {
        let register = match offset & !7 {
            common::QUEUE_DESC => &mut self.desc,
            common::QUEUE_DRIVER => &mut self.driver,
            common::QUEUE_DEVICE => &mut self.device,
            _ => return,
        };
        match (offset & 7, len) {
            (0, 8) => *register = value,
            (0, 4) => *register = *register & !0xffff_ffff | value,
            (4, 4) => *register = *register & 0xffff_ffff | value << 32,
            _ => {}
        }
    }
}
