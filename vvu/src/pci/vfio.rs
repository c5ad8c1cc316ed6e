//! A PCI function that is reached through the groups and containers of the kernel's VFIO.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use vfio_bindings::bindings::vfio::{
    VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_MSIX_IRQ_INDEX, VFIO_REGION_INFO_FLAG_MMAP,
};
use vfio_ioctls::{VfioContainer, VfioDevice, VfioRegionInfoCap};
use vmm_sys_util::eventfd::EventFd;

use super::sysfs::SysfsDevice;
use super::{Address, BAR_COUNT, BarFile, DmaMemory, PciError, PciFunction, Wanted};

mod error;
mod ioctl;

use error::explain;

/// A PCI function that is reached through the kernel's VFIO.
///
/// The kernel resets the function when this value and all mappings of its BARs have been dropped.
pub struct VfioFunction {
    address: Address,
    /// A duplicate of the device's descriptor. Mappings of BARs hold this duplicate, and may
    /// outlive the `VfioFunction`.
    file: ManuallyDrop<Arc<File>>,
    device: ManuallyDrop<VfioDevice>,
    container: Arc<VfioContainer>,
    sysfs_path: PathBuf,
    iova_ranges: Vec<RangeInclusive<u64>>,
    dma: Mutex<HashMap<u64, Arc<DmaMemory>>>,
}

impl VfioFunction {
    /// Opens the function at `address` if `wanted` returns true for its identity.
    ///
    /// # Errors
    ///
    /// [`PciError`], whose text names the problem and the remedy in one line.
    pub fn open(address: &Address, wanted: Wanted) -> Result<Self, PciError> {
        let address = *address;
        let sysfs = SysfsDevice::find(Path::new("/sys"), address)?;
        let group = sysfs.check(wanted)?;
        let explain = |error| explain(error, address, &group);
        let container = Arc::new(VfioContainer::new(None).map_err(explain)?);
        let device = VfioDevice::new(sysfs.path(), container.clone(), false).map_err(explain)?;
        let describe = |what| move |source| PciError::Io { what, source };
        let file = duplicate(&device).map_err(describe("duplicate the device's descriptor"))?;
        let iova_ranges = ioctl::iova_ranges(container.as_ref())
            .map_err(describe("ask the IOMMU for its address ranges"))?;
        Ok(Self {
            address,
            file: ManuallyDrop::new(Arc::new(file)),
            device: ManuallyDrop::new(device),
            container,
            sysfs_path: sysfs.path().to_owned(),
            iova_ranges,
            dma: Mutex::new(HashMap::new()),
        })
    }

    fn position(&self, region: u32, offset: u64, len: usize) -> io::Result<u64> {
        let size = self.device.get_region_size(region);
        let end = offset.checked_add(len as u64);
        if end.is_none_or(|end| end > size) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(self.device.get_region_offset(region) + offset)
    }

    fn read(&self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let position = self.position(region, offset, data.len())?;
        self.file.read_exact_at(data, position)
    }

    fn write(&self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        let position = self.position(region, offset, data.len())?;
        self.file.write_all_at(data, position)
    }

    /// The mappable parts of a BAR. Each entry has the offset and the length of a part in bytes.
    fn mappable_areas(&self, bar: u8) -> Vec<(u64, u64)> {
        let bar = u32::from(bar);
        if self.device.get_region_flags(bar) & VFIO_REGION_INFO_FLAG_MMAP == 0 {
            return Vec::new();
        }
        let sparse = self
            .device
            .get_region_caps(bar)
            .into_iter()
            .find_map(|cap| {
                let VfioRegionInfoCap::SparseMmap(sparse) = cap else {
                    return None;
                };
                Some(
                    sparse
                        .areas
                        .iter()
                        .map(|area| (area.offset, area.size))
                        .collect(),
                )
            });
        sparse.unwrap_or_else(|| vec![(0, self.device.get_region_size(bar))])
    }
}

fn duplicate(device: &VfioDevice) -> io::Result<File> {
    // SAFETY: `device` owns the descriptor and is borrowed, so the descriptor stays open until this
    // function returns. `fd` is not used after this function has returned.
    let fd = unsafe { BorrowedFd::borrow_raw(device.as_raw_fd()) };
    Ok(File::from(fd.as_fd().try_clone_to_owned()?))
}

impl PciFunction for VfioFunction {
    fn name(&self) -> String {
        self.address.to_string()
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.read(VFIO_PCI_CONFIG_REGION_INDEX, offset, data)
    }

    fn write_config(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write(VFIO_PCI_CONFIG_REGION_INDEX, offset, data)
    }

    fn bar_size(&self, bar: u8) -> u64 {
        if bar < BAR_COUNT {
            self.device.get_region_size(u32::from(bar))
        } else {
            0
        }
    }

    fn read_bar(&self, bar: u8, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.read(u32::from(bar), offset, data)
    }

    fn write_bar(&self, bar: u8, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write(u32::from(bar), offset, data)
    }

    fn bar_file(&self, bar: u8, offset: u64, len: u64) -> Option<BarFile> {
        let end = offset.checked_add(len)?;
        let inside = |&(start, size): &(u64, u64)| start <= offset && end <= start + size;
        self.mappable_areas(bar).iter().find(|area| inside(area))?;
        Some(BarFile {
            file: Arc::clone(&self.file),
            offset: self.device.get_region_offset(u32::from(bar)) + offset,
            direct_io: false,
        })
    }

    fn iova_ranges(&self) -> Vec<RangeInclusive<u64>> {
        self.iova_ranges.clone()
    }

    fn map_dma(&self, iova: u64, memory: &Arc<DmaMemory>) -> Result<(), PciError> {
        let mut dma = self.dma.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: `self.dma` keeps the memory mapped until `vfio_dma_unmap()` has succeeded, the
        // container is closed or the device is unplugged. `Mapping` accesses the memory only
        // through raw pointers and makes no references to the memory, so the device may change the
        // memory at any time.
        let result = unsafe {
            self.container
                .vfio_dma_map(iova, memory.len(), memory.as_ptr())
        };
        result.map_err(|error| error::explain_dma(error, memory.len()))?;
        dma.insert(iova, memory.clone());
        Ok(())
    }

    fn unmap_dma(&self, iova: u64) -> io::Result<()> {
        let mut dma = self.dma.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = dma.get(&iova).ok_or(io::ErrorKind::NotFound)?;
        let result = self.container.vfio_dma_unmap(iova, memory.len());
        result.map_err(io::Error::other)?;
        dma.remove(&iova);
        Ok(())
    }

    fn vector_count(&self) -> u16 {
        let info = self.device.get_irq_info(VFIO_PCI_MSIX_IRQ_INDEX);
        info.map_or(0, |info| info.count.try_into().unwrap_or(u16::MAX))
    }

    fn set_vectors(&self, eventfds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if eventfds.is_empty() {
            return self.device.disable_msix().map_err(io::Error::other);
        }
        // The kernel keeps references to the eventfds, so the duplicate descriptors may be closed
        // after the call of `enable_msix`.
        let eventfds: Vec<_> = eventfds
            .iter()
            .map(as_vfio_eventfd)
            .collect::<io::Result<_>>()?;
        let enabled = self.device.enable_msix(eventfds.iter().collect());
        enabled.map_err(io::Error::other)
    }

    fn reset(&self) -> io::Result<bool> {
        ioctl::reset(&self.file)
    }
}

/// Duplicates the descriptor of an eventfd as an [`EventFd`], because the vfio-ioctls crate takes
/// values of this type.
fn as_vfio_eventfd(eventfd: &BorrowedFd<'_>) -> io::Result<EventFd> {
    let fd = eventfd.try_clone_to_owned()?.into_raw_fd();
    // SAFETY: this function made the descriptor `fd`, which has no other owner. `EventFd` takes the
    // ownership.
    Ok(unsafe { EventFd::from_raw_fd(fd) })
}

impl Drop for VfioFunction {
    fn drop(&mut self) {
        // The kernel releases an IOMMU group only when all descriptors of the group's devices are
        // closed.
        // SAFETY: `file` is dropped only here and is not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.file) };
        // Dropping a `VfioDevice` looks up the IOMMU group in sysfs, and panics if the device has
        // been unplugged. The `VfioDevice` of an unplugged device is therefore leaked until the
        // process ends.
        if self.sysfs_path.join("iommu_group").exists() {
            // SAFETY: `device` is dropped only here and is not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.device) };
        }
    }
}

impl fmt::Debug for VfioFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VfioFunction({})", self.address)
    }
}
