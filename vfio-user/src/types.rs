//! The types that describe a device's regions, interrupts and memory to the other end of a
//! connection.

use std::fs::File;
use std::sync::Arc;

use bitflags::bitflags;
use ipc::SharedEventFd;

/// The numbers of the regions and the interrupt kinds of a PCI device (`linux/vfio.h`).
pub mod index {
    /// The region of BAR 0. BARs 1 to 5 have the region numbers 1 to 5.
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
    /// The number of interrupt kinds of a PCI device. The kinds are INTx, MSI, MSI-X, error and
    /// request.
    pub const IRQS: u32 = 5;
}

bitflags! {
    /// The kind of a device, and its abilities (`VFIO_DEVICE_FLAGS_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct DeviceFlags: u32 {
        /// The device can be reset.
        const RESET = 1;
        /// The device is a PCI function.
        const PCI = 2;
        const _ = !0;
    }

    /// The kinds of access that are allowed to a region (`VFIO_REGION_INFO_FLAG_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct RegionFlags: u32 {
        /// The region can be read.
        const READ = 1;
        /// The region can be written.
        const WRITE = 2;
        /// The areas of [`RegionInfo::areas`] can be mapped.
        const MMAP = 4;
        /// A list of capabilities follows the description of the region. The client and the server
        /// of this crate handle this flag, so callers do not need it.
        const CAPS = 8;
        const _ = !0;
    }

    /// The abilities of the interrupts of one kind (`VFIO_IRQ_INFO_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct IrqFlags: u32 {
        /// The interrupts can signal eventfds.
        const EVENTFD = 1;
        /// The interrupts can be masked and unmasked.
        const MASKABLE = 2;
        /// An interrupt is masked each time it is signalled.
        const AUTOMASKED = 4;
        /// To set up more interrupts of the kind, all of them have to be disabled first.
        const NORESIZE = 8;
        const _ = !0;
    }

    /// The kinds of access that the device may make to memory (`VFIO_USER_F_DMA_REGION_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct DmaFlags: u32 {
        /// The device may read the memory.
        const READ = 1;
        /// The device may write the memory.
        const WRITE = 2;
        const _ = !0;
    }
}

/// The kind of a device, the number of its regions, and the number of its interrupt kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The kind of the device, and its abilities.
    pub flags: DeviceFlags,
    /// Number of regions.
    pub regions: u32,
    /// Number of interrupt kinds.
    pub irqs: u32,
}

/// Part of a region. The offset counts from the start of the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Offset of the area's first byte.
    pub offset: u64,
    /// Length of the area in bytes.
    pub size: u64,
}

/// A region of a device, which is a BAR or configuration space.
#[derive(Clone, Debug, Default)]
pub struct RegionInfo {
    /// The kinds of access that are allowed to the region.
    pub flags: RegionFlags,
    /// Length of the region in bytes. 0 means that the device does not have this region.
    pub size: u64,
    /// Offset in `file` at which the region begins, in bytes. The offsets of areas are relative to
    /// the start of the region.
    pub offset: u64,
    /// The parts of the region that can be mapped. All of them lie inside the region.
    pub areas: Vec<Area>,
    /// The file to map. A region with areas always has a file.
    pub file: Option<Arc<File>>,
}

impl RegionInfo {
    /// Whether one area covers the whole region. Messages describe such a region without a list of
    /// areas.
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
    /// The abilities of the interrupts.
    pub flags: IrqFlags,
    /// The number of interrupts.
    pub count: u32,
}

/// An eventfd that a client can signal instead of writing to a part of a region.
#[derive(Clone, Debug)]
pub struct IoEventFd {
    /// Offset in the region at which the part begins, in bytes.
    pub offset: u64,
    /// Length in bytes of the writes that the signal replaces. 0 means any length.
    pub size: u64,
    /// The eventfd to signal. Several parts may share an eventfd.
    pub eventfd: Arc<SharedEventFd>,
    /// The written value that the signal replaces. `None` means any value.
    pub datamatch: Option<u64>,
}
