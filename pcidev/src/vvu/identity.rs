//! The PCI identity, the BARs and the capabilities of the device.

use virtio::pci::{Capability, VENDOR_ID};
use vvu_abi as abi;

use super::doorbell;
use super::window::Window;
use crate::blocked::Blocked;
use crate::config_space::{BarKind, ConfigSpace, Identity};
use crate::dma::DmaTable;
use crate::function::{Function, trapped_bar};
use crate::msix::Msix;
use crate::virtio_pci::Layout;

/// Number of the BAR that holds the doorbells and the notification registers.
pub(super) const SIGNAL_BAR: usize = 2;
/// Number of the BAR that shows the front-end's memory.
pub(super) const MEMORY_BAR: usize = 4;
/// Length in bytes of the BAR that holds the doorbells and the notification registers.
const SIGNAL_BAR_SIZE: u64 = 0x4000;
/// Offset of the notification registers in their BAR. The doorbells begin at offset 0 of the same
/// BAR.
pub(super) const NOTIFICATIONS: u64 = 0x2000;
/// Length in bytes of the notification registers, and of the device configuration, as the
/// capabilities report it.
const PAGE: u32 = 0x1000;
/// Class code of an unclassified device, without a programming interface.
const CLASS: u32 = 0x00_ff00;
/// The largest multiple of the page size that fits into the 32-bit length field of a capability.
const MAX_LENGTH: u64 = 0xffff_f000;

/// The properties of a device that its user chooses.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The maximum number of vhost queues, 1 to 256. A message has 8 bits for the number of a
    /// queue.
    pub max_vhost_queues: u16,
    /// The UUID by which a driver identifies the device. A UUID of zeros means that the device has
    /// no identity.
    pub uuid: [u8; 16],
}

impl Options {
    /// The number of MSI-X vectors. One vector is for configuration changes. Each of the two
    /// virtqueues has a vector, and each vhost queue has a vector for its kicks.
    pub(super) fn vectors(&self) -> u16 {
        1 + abi::queue::COUNT + self.max_vhost_queues
    }
}

/// The PCI function of a device whose BAR 0 has the layout `layout` and whose memory is `window`.
pub(super) fn function(options: &Options, layout: &Layout, window: &Window) -> Function {
    let mut config = ConfigSpace::new(&Identity {
        vendor: VENDOR_ID,
        device: abi::PCI_DEVICE_ID,
        revision: 1,
        class: CLASS,
        subsystem_vendor: VENDOR_ID,
        subsystem: abi::PCI_SUBSYSTEM_ID,
    });
    let memory = window.region();
    let access = layout.describe(&mut config, PAGE);
    config.add_bar(SIGNAL_BAR, BarKind::Memory64, SIGNAL_BAR_SIZE);
    config.add_bar(MEMORY_BAR, BarKind::Prefetchable64, memory.size);
    for capability in capabilities(memory.size) {
        config.add_capability(&capability.encode());
    }
    config.add_function_level_reset();
    let mut bars: [_; 6] = Default::default();
    bars[0] = trapped_bar(layout.size());
    bars[SIGNAL_BAR] = trapped_bar(SIGNAL_BAR_SIZE);
    bars[MEMORY_BAR] = memory;
    let blocked = Blocked::default();
    Function {
        config,
        intx: None,
        msix: Msix::new(options.vectors(), &blocked),
        blocked,
        dma: DmaTable::new(window.files()),
        bars,
        window: Some(access),
    }
}

/// The capabilities that only a VVU device has. The length of the memory BAR is `memory` bytes.
fn capabilities(memory: u64) -> [Capability; 3] {
    [
        Capability {
            cfg_type: abi::cfg_type::DOORBELL,
            bar: SIGNAL_BAR as u8,
            offset: 0,
            length: NOTIFICATIONS as u32,
            multiplier: Some(doorbell::STRIDE as u32),
        },
        Capability {
            cfg_type: abi::cfg_type::NOTIFICATION,
            bar: SIGNAL_BAR as u8,
            offset: NOTIFICATIONS as u32,
            length: PAGE,
            multiplier: None,
        },
        Capability {
            cfg_type: abi::cfg_type::SHARED_MEMORY,
            bar: MEMORY_BAR as u8,
            offset: 0,
            length: memory.min(MAX_LENGTH) as u32,
            multiplier: None,
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_the_known_bytes() {
        let [doorbell, notification, memory] = capabilities(2 << 30).map(|c| c.encode());
        let expected = [
            9, 0, 20, 6, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 4, 0, 0, 0,
        ];
        assert_eq!(doorbell, expected);
        let expected = [9, 0, 16, 7, 2, 0, 0, 0, 0, 0x20, 0, 0, 0, 0x10, 0, 0];
        assert_eq!(notification, expected);
        assert_eq!(memory, [9, 0, 16, 8, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80]);
    }

    #[test]
    fn the_length_of_much_memory_does_not_wrap() {
        let [_, _, memory] = capabilities(8 << 30);
        assert_eq!(memory.length, 0xffff_f000);
    }
}
