//! The layout of BAR 0, which holds all structures of the transport, the MSI-X table and the
//! pending bits.

use virtio::pci::{Capability, cfg_type, common};

use crate::config_space::{BarKind, ConfigSpace, MsixLocation};
use crate::msix::ENTRY_SIZE;

/// Distance in bytes between the notification registers of two consecutive queues.
const NOTIFY_MULTIPLIER: u32 = 4;

/// Number of the BAR that holds all structures.
const BAR: u8 = 0;
const ISR: u32 = 0x1000;
const DEVICE: u32 = 0x2000;
const NOTIFY: u32 = 0x3000;
const TABLE: u32 = 0x6000;
const PAGE: u32 = 0x1000;

/// The structure at an offset in BAR 0, and the offset in that structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Common configuration.
    Common(u64),
    /// Interrupt status.
    Isr,
    /// Device-specific configuration.
    Device(u64),
    /// The notification register of this queue.
    Notify(u16),
    /// The MSI-X table.
    Table(usize),
    /// The MSI-X pending bits.
    Pending(usize),
    /// No structure is at this offset.
    Nowhere,
}

/// The layout of BAR 0 of one device.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    queues: u16,
    vectors: u16,
}

impl Layout {
    /// The layout for the given numbers of queues (at most 1024) and MSI-X vectors (1 to 2048).
    pub fn new(queues: u16, vectors: u16) -> Self {
        Self { queues, vectors }
    }

    /// Length of BAR 0 in bytes.
    pub fn size(&self) -> u64 {
        u64::from(self.pending() + PAGE).next_power_of_two()
    }

    /// Adds the BAR, the MSI-X capability and the virtio capabilities to `space`. The
    /// device-specific configuration has `config` bytes. Returns the offset in configuration space
    /// of the capability by which software accesses BARs.
    pub fn describe(&self, space: &mut ConfigSpace, config: u32) -> usize {
        space.add_bar(usize::from(BAR), BarKind::Memory32, self.size());
        let capability = |cfg_type, offset, length| Capability {
            cfg_type,
            bar: BAR,
            offset,
            length,
            multiplier: None,
        };
        let notify = Capability {
            multiplier: Some(NOTIFY_MULTIPLIER),
            ..capability(
                cfg_type::NOTIFY,
                NOTIFY,
                u32::from(self.queues) * NOTIFY_MULTIPLIER,
            )
        };
        // The capability that gives access to BARs has a data field where other capabilities have
        // the multiplier.
        let window = Capability {
            multiplier: Some(0),
            ..capability(cfg_type::PCI, 0, 0)
        };
        space.add_capability(&capability(cfg_type::COMMON, 0, common::SIZE as u32).encode());
        space.add_capability(&notify.encode());
        space.add_capability(&capability(cfg_type::ISR, ISR, 1).encode());
        space.add_capability(&capability(cfg_type::DEVICE, DEVICE, config).encode());
        let at = space.add_capability(&window.encode());
        space.allow(at + 4, &[0xff]);
        space.allow(at + 8, &[0xff; 12]);
        space.add_msix(&self.msix());
        at
    }

    /// The location of the MSI-X table and of the pending bits.
    pub fn msix(&self) -> MsixLocation {
        MsixLocation {
            vectors: self.vectors,
            bar: BAR,
            table: TABLE,
            pending: self.pending(),
        }
    }

    /// The offset in BAR 0 of a queue's notification register, and its length in bytes.
    pub fn notification(queue: u16) -> (u64, u64) {
        let offset = NOTIFY + u32::from(queue) * NOTIFY_MULTIPLIER;
        (offset.into(), 2)
    }

    fn pending(&self) -> u32 {
        let table = u32::from(self.vectors) * ENTRY_SIZE as u32;
        TABLE + table.next_multiple_of(PAGE)
    }

    /// The structure at `offset` in BAR 0.
    pub fn locate(&self, offset: u64) -> Place {
        let Ok(offset) = u32::try_from(offset) else {
            return Place::Nowhere;
        };
        match offset {
            _ if u64::from(offset) < common::SIZE => Place::Common(offset.into()),
            ISR => Place::Isr,
            DEVICE..NOTIFY => Place::Device((offset - DEVICE).into()),
            NOTIFY..TABLE => self.locate_queue(offset - NOTIFY),
            _ if offset >= self.pending() => Place::Pending((offset - self.pending()) as usize),
            TABLE.. => Place::Table((offset - TABLE) as usize),
            _ => Place::Nowhere,
        }
    }

    fn locate_queue(&self, offset: u32) -> Place {
        let queue = offset / NOTIFY_MULTIPLIER;
        match offset % NOTIFY_MULTIPLIER {
            0 if queue < u32::from(self.queues) => Place::Notify(queue as u16),
            _ => Place::Nowhere,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_offset_belongs_to_its_structure_or_to_none() {
        let layout = Layout::new(2, 19);
        let places = [
            (0x37, Place::Common(0x37)),
            (0x38, Place::Nowhere),
            (0x1000, Place::Isr),
            (0x1001, Place::Nowhere),
            (0x2004, Place::Device(4)),
            (0x3000, Place::Notify(0)),
            (0x3002, Place::Nowhere),
            (0x3004, Place::Notify(1)),
            (0x3008, Place::Nowhere),
            (0x6010, Place::Table(16)),
            (0x7008, Place::Pending(8)),
            (1 << 32, Place::Nowhere),
        ];
        for (offset, place) in places {
            assert_eq!(layout.locate(offset), place, "{offset:#x}");
        }
        assert_eq!(layout.size(), 0x8000);
    }

    #[test]
    fn many_vectors_make_the_bar_larger() {
        let layout = Layout::new(2, 2048);
        assert_eq!(layout.msix().pending, 0xe000);
        assert_eq!(layout.size(), 0x10000);
    }
}
