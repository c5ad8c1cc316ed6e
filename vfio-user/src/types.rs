//! What the two ends tell each other about a device: its regions, interrupts and memory.

use std::fs::File;
use std::sync::Arc;

use bitflags::bitflags;
use ipc::SharedEventFd;

/// Numbers of the regions and of the kinds of interrupts of a PCI device (`linux/vfio.h`).
pub mod index {
    /// The region of BAR 0. The other five BARs follow.
    pub const BAR0: u32 = 0;
    /// The region of configuration space.
    pub const CONFIG: u32 = 7;
    /// The number of regions of a PCI device.
    pub const REGIONS: u32 = 9;
    /// The INTx interrupt.
    pub const INTX: u32 = 0;
    /// The MSI-X interrupts.
    pub const MSIX: u32 = 2;
    /// The interrupt that reports errors of PCI Express.
    pub const ERROR: u32 = 3;
    /// The number of kinds of interrupts of a PCI device.
    pub const IRQS: u32 = 5;
}

bitflags! {
    /// What kind of device it is, and what it can do (`VFIO_DEVICE_FLAGS_*`).
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
        /// It can be read.
        const READ = 1;
        /// It can be written.
        const WRITE = 2;
        /// The areas of [`RegionInfo::areas`] can be mapped.
        const MMAP = 4;
        /// A list of capabilities follows. Client and server of this crate set and read this flag
        /// themselves.
        const CAPS = 8;
        const _ = !0;
    }

    /// What interrupts of one kind can do (`VFIO_IRQ_INFO_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct IrqFlags: u32 {
        /// They can signal eventfds.
        const EVENTFD = 1;
        /// They can be masked and unmasked.
        const MASKABLE = 2;
        /// A signal masks the interrupt.
        const AUTOMASKED = 4;
        /// They can only be set up all at once.
        const NORESIZE = 8;
        const _ = !0;
    }

    /// What the device may do with memory (`VFIO_USER_F_DMA_REGION_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct DmaFlags: u32 {
        /// It may read it.
        const READ = 1;
        /// It may write it.
        const WRITE = 2;
        const _ = !0;
    }
}

/// What a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// What kind of device it is, and what it can do.
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
    /// Length in bytes. 0: the device does not have this region.
    pub size: u64,
    /// Where in `file` the region begins, in bytes. The offsets of areas are relative to it.
    pub offset: u64,
    /// The parts of the region that can be mapped. All of them lie inside the region.
    pub areas: Vec<Area>,
    /// The file to map. It is there if there are areas.
    pub file: Option<Arc<File>>,
}

impl RegionInfo {
    /// Whether one area covers the region. It is then sent without a list of areas.
    pub(crate) fn is_mapped_whole(&self) -> bool {
        let whole = Area {
            offset: 0,
            size: self.size,
        };
        self.areas == [whole]
    }
}

/// The interrupts of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IrqInfo {
    /// What they can do.
    pub flags: IrqFlags,
    /// Their number.
    pub count: u32,
}

/// An eventfd that a client can signal instead of writing to a part of a region.
#[derive(Clone, Debug)]
pub struct IoEventFd {
    /// Where in the region the part begins, in bytes.
    pub offset: u64,
    /// Length of the writes in bytes. 0: any length.
    pub size: u64,
    /// The eventfd to signal. Several parts may have the same one.
    pub eventfd: Arc<SharedEventFd>,
    /// The value that is written. `None`: any value.
    pub datamatch: Option<u64>,
}
