//! What the two ends tell each other about a device: regions, interrupts, memory.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bitflags::bitflags;

/// Numbers of the regions and interrupts of a PCI device (`linux/vfio.h`).
pub mod index {
    /// Region of BAR 0; the other five BARs follow.
    pub const BAR0: u32 = 0;
    /// Region of configuration space.
    pub const CONFIG: u32 = 7;
    /// How many regions a PCI device has.
    pub const REGIONS: u32 = 9;
    /// The INTx interrupt.
    pub const INTX: u32 = 0;
    /// The MSI-X interrupts.
    pub const MSIX: u32 = 2;
    /// The interrupt by which PCI Express reports errors.
    pub const ERROR: u32 = 3;
    /// How many kinds of interrupts a PCI device has.
    pub const IRQS: u32 = 5;
}

bitflags! {
    /// What a device is and can do (`VFIO_DEVICE_FLAGS_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct DeviceFlags: u32 {
        /// It can be reset.
        const RESET = 1;
        /// It is a PCI function.
        const PCI = 2;
        const _ = !0;
    }

    /// How a region may be accessed (`VFIO_REGION_INFO_FLAG_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct RegionFlags: u32 {
        /// By reads.
        const READ = 1;
        /// By writes.
        const WRITE = 2;
        /// By mapping the areas of [`RegionInfo::areas`].
        const MMAP = 4;
        /// Capabilities follow; the two ends here set and read it themselves.
        const CAPS = 8;
        const _ = !0;
    }

    /// What an interrupt can do (`VFIO_IRQ_INFO_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct IrqFlags: u32 {
        /// Signal an eventfd.
        const EVENTFD = 1;
        /// Be masked and unmasked.
        const MASKABLE = 2;
        /// Mask itself when it was triggered.
        const AUTOMASKED = 4;
        /// Be set up only all at once.
        const NORESIZE = 8;
        const _ = !0;
    }

    /// What the device may do with memory (`VFIO_USER_F_DMA_REGION_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct DmaFlags: u32 {
        /// Read it.
        const READ = 1;
        /// Write it.
        const WRITE = 2;
        const _ = !0;
    }
}

/// What a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// What it is and can do.
    pub flags: DeviceFlags,
    /// Number of regions.
    pub regions: u32,
    /// Number of kinds of interrupts.
    pub irqs: u32,
}

/// Part of a region, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub size: u64,
}

/// A region of a device: a BAR, or configuration space.
#[derive(Clone, Debug, Default)]
pub struct RegionInfo {
    /// How it may be accessed.
    pub flags: RegionFlags,
    /// Length in bytes; 0: the device has no such region.
    pub size: u64,
    /// Where in `file` the region begins, in bytes. Areas add to it.
    pub offset: u64,
    /// What of the region can be mapped: all areas lie inside it. Empty when nothing can.
    pub areas: Vec<Area>,
    /// What to map; there when there are areas.
    pub file: Option<Arc<File>>,
}

impl RegionInfo {
    /// True when one area covers the region, which needs no list on the wire.
    pub(crate) fn is_mapped_whole(&self) -> bool {
        let whole = Area {
            offset: 0,
            size: self.size,
        };
        self.areas == [whole]
    }
}

/// A kind of interrupts of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IrqInfo {
    /// What it can do.
    pub flags: IrqFlags,
    /// Number of interrupts; 0: the device has none of this kind.
    pub count: u32,
}

/// An eventfd that stands for writes to a part of a region.
#[derive(Clone, Debug)]
pub struct IoEventFd {
    /// Where in the region the part begins, in bytes.
    pub offset: u64,
    /// Length of the writes in bytes; 0: any.
    pub size: u64,
    /// The eventfd to signal. One may stand for several parts.
    pub fd: Arc<OwnedFd>,
    /// Only writes of this value count; `None`: all do.
    pub datamatch: Option<u64>,
}
