//! The properties that a mock device reports.

use virtio::pci::{Capability, VENDOR_ID, cfg_type as virtio_cfg, config_space};

use vvu_abi::{self as abi, cfg_type};

/// A BAR and an offset in it, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarOffset(pub u8, pub u64);

/// The properties of a mock device. The device's capabilities may contradict the other properties.
#[derive(Clone, Debug)]
pub struct Profile {
    /// PCI device id.
    pub device: u16,
    /// PCI subsystem id.
    pub subsystem: u16,
    /// Sizes of the BARs in bytes.
    pub bars: [u64; 6],
    /// The BAR with the front-end's memory.
    pub window_bar: u8,
    /// The bytes of the capabilities, in the order of the capability list.
    pub capabilities: Vec<Vec<u8>>,
    /// The actual location of the common registers. The capabilities may name another location.
    pub common: BarOffset,
    /// The actual location of the device configuration.
    pub config: BarOffset,
    /// The actual location of the notification registers of the virtqueues.
    pub notify: BarOffset,
    /// The actual location of the doorbells.
    pub doorbell: BarOffset,
    /// The actual location of the registers that choose the MSI-X vectors for kicks.
    pub notification: BarOffset,
    /// The number of MSI-X vectors.
    pub vectors: u16,
    /// Number of virtqueues.
    pub queue_count: u16,
    /// Size of each virtqueue.
    pub queue_size: u16,
    /// Number of vhost queues.
    pub max_vhost_queues: u32,
    /// The virtio feature bits that the device offers.
    pub features: u64,
    /// The notification offset of each virtqueue.
    pub notify_offs: [u16; 2],
    /// Whether doorbells can be mapped. The mock does not see writes to mapped doorbells.
    pub doorbells_mapped: bool,
    /// Whether the status field shows if a front-end is connected. If false, the device reports by
    /// an empty message that the front-end has left.
    pub status_tells: bool,
}

fn capability(cfg_type: u8, place: BarOffset, length: u32, multiplier: Option<u32>) -> Vec<u8> {
    let BarOffset(bar, offset) = place;
    let offset = offset as u32;
    Capability {
        cfg_type,
        bar,
        offset,
        length,
        multiplier,
    }
    .encode()
}

impl Profile {
    /// The profile of this project's device model.
    pub fn ours() -> Self {
        let mut profile = Self {
            device: abi::PCI_DEVICE_ID,
            subsystem: abi::PCI_SUBSYSTEM_ID,
            bars: [0x8000, 0, 0x4000, 0, 1 << 33, 0],
            window_bar: 4,
            capabilities: Vec::new(),
            common: BarOffset(0, 0),
            config: BarOffset(0, 0x2000),
            notify: BarOffset(0, 0x3000),
            doorbell: BarOffset(2, 0),
            notification: BarOffset(2, 0x2000),
            vectors: 19,
            queue_count: 2,
            queue_size: 256,
            max_vhost_queues: 16,
            features: 1 << 32 | 1 << 33 | 1 << 29 | 1 << 28,
            notify_offs: [0, 1],
            doorbells_mapped: false,
            status_tells: true,
        };
        profile.capabilities = profile.honest_capabilities(0);
        profile
    }

    /// The profile of QEMU's device of 2019.
    pub fn qemu() -> Self {
        let mut profile = Self {
            device: 0x1058,
            subsystem: 0x1100,
            bars: [0, 0x8000, 1 << 36, 0, 0x4000, 0],
            window_bar: 2,
            common: BarOffset(4, 0),
            config: BarOffset(4, 0x2000),
            notify: BarOffset(4, 0x3000),
            vectors: 1027,
            queue_size: 128,
            max_vhost_queues: 1024,
            ..Self::ours()
        };
        profile.capabilities = profile.honest_capabilities(0x1000);
        // QEMU adds each new capability at the front of the capability list.
        profile.capabilities.rotate_right(3);
        profile
    }

    /// The profile of crosvm's device of 2022.
    pub fn crosvm() -> Self {
        Self {
            subsystem: abi::PCI_DEVICE_ID,
            features: 1 << 32 | 1 << 33 | 1 << 29,
            status_tells: false,
            ..Self::ours()
        }
    }

    fn honest_capabilities(&self, window_length: u32) -> Vec<Vec<u8>> {
        let window = match self.window_bar {
            2 => BarOffset(2, 0x3000),
            bar => BarOffset(bar, 0),
        };
        let isr = BarOffset(self.common.0, 0x1000);
        vec![
            capability(virtio_cfg::COMMON, self.common, 0x38, None),
            capability(virtio_cfg::ISR, isr, 1, None),
            capability(virtio_cfg::DEVICE, self.config, 0x1000, None),
            capability(virtio_cfg::NOTIFY, self.notify, 0x1000, Some(4)),
            capability(virtio_cfg::PCI, BarOffset(0, 0), 0, None),
            vec![config_space::CAP_MSIX, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            capability(cfg_type::DOORBELL, self.doorbell, 0x2000, Some(4)),
            capability(cfg_type::NOTIFICATION, self.notification, 0x1000, None),
            capability(cfg_type::SHARED_MEMORY, window, window_length, None),
        ]
    }

    /// Changes the first virtio capability of type `cfg_type`.
    pub fn change(mut self, cfg_type: u8, change: impl FnOnce(&mut Capability)) -> Self {
        let found = self
            .capabilities
            .iter_mut()
            .find(|bytes| bytes[3] == cfg_type && bytes[0] == config_space::CAP_VENDOR);
        let bytes = found.expect("there is such a capability");
        let mut capability = Capability::decode(bytes).expect("a virtio capability");
        change(&mut capability);
        *bytes = capability.encode();
        self
    }

    /// Removes all virtio capabilities of type `cfg_type`.
    pub fn without(mut self, cfg_type: u8) -> Self {
        self.capabilities.retain(|bytes| bytes[3] != cfg_type);
        self
    }

    /// The configuration space of the device.
    pub fn config_space(&self) -> [u8; 256] {
        let mut config = [0; 256];
        let mut put =
            |at: usize, value: u16| config[at..at + 2].copy_from_slice(&value.to_le_bytes());
        put(config_space::VENDOR_ID, VENDOR_ID);
        put(config_space::DEVICE_ID, self.device);
        put(config_space::STATUS, config_space::STATUS_CAPABILITIES);
        put(config_space::SUBSYSTEM_VENDOR_ID, VENDOR_ID);
        put(config_space::SUBSYSTEM_ID, self.subsystem);
        config[config_space::CLASS + 1] = 0xff;
        let mut link = config_space::CAPABILITIES;
        let mut at = 0x40;
        for bytes in &self.capabilities {
            config[link] = at as u8;
            config[at..at + bytes.len()].copy_from_slice(bytes);
            link = at + 1;
            at = (at + bytes.len()).next_multiple_of(4);
        }
        config
    }
}
