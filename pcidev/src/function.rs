//! The parts that all PCI functions have in common, and the code that handles a client's requests.

use std::io;
use std::slice;
use std::time::Duration;

use rustix::io::Errno;
use tracing::debug;
use vfio_user::server::{Connection, DmaUnmap, RegionWrite, Request, ServerError};
use vfio_user::{
    DeviceFlags, DeviceInfo, IoEventFd, IrqFlags, IrqInfo, RegionFlags, RegionInfo, index,
};

use crate::blocked::Blocked;
use crate::config_space::{self, ConfigSpace};
use crate::dma::{self, DmaTable};
use crate::intx::Intx;
use crate::msix::Msix;
use crate::poller::Poller;
use crate::set_irqs::{ClientInterrupt, set_irqs};

/// The parts of a function that do not depend on the device.
#[derive(Debug)]
pub struct Function {
    /// Configuration space.
    pub config: ConfigSpace,
    /// The MSI-X interrupts.
    pub msix: Msix,
    /// The INTx interrupt, for software that does not use MSI-X. `None` means that the function has
    /// no INTx interrupt.
    pub intx: Option<Intx>,
    /// Whether a signal to an eventfd of the client has blocked. The event loop then drops the
    /// client.
    pub blocked: Blocked,
    /// The client's memory.
    pub dma: DmaTable,
    /// The BARs. A BAR of size 0 does not exist.
    pub bars: [RegionInfo; 6],
    /// Offset in configuration space of the capability that gives access to BARs. `None` means that
    /// the function has no such capability.
    pub window: Option<usize>,
}

impl Function {
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.config.write(offset, data);
        if let Some(intx) = &self.intx {
            intx.disable(self.config.disables_intx());
        }
    }
}

/// A function that can be served to a client.
pub trait Device {
    /// The parts of the function that do not depend on the device.
    fn function(&mut self) -> &mut Function;

    /// Reads from a BAR. The caller has checked that the access ends inside the BAR.
    fn bar_read(&mut self, bar: usize, offset: u64, data: &mut [u8]);

    /// Writes to a BAR. The caller has checked that the access ends inside the BAR.
    fn bar_write(&mut self, bar: usize, offset: u64, data: &[u8]);

    /// The eventfds that a client can signal instead of writing to the BAR with number `bar`.
    fn io_event_fds(&self, bar: usize) -> Vec<IoEventFd>;

    /// Replaces all eventfds of [`Device::io_event_fds`] after a client has left, because the
    /// client may still have them.
    fn replace_io_event_fds(&mut self);

    /// Stops using the client's memory at the addresses `first..=last`. The caller calls this
    /// method twice. The first call comes before the memory is unmapped, so that requests in flight
    /// can complete. The second call comes afterwards, for requests that began after the first
    /// call.
    fn give_memory_up(&mut self, first: u64, last: u64);

    /// Handles a change of the client's memory. The caller calls this method before it replies to
    /// the client's request for the change.
    fn memory_changed(&mut self);

    /// Resets the device. The caller resets [`Device::function`] itself.
    fn reset(&mut self);

    /// The poller that watches the device's descriptors. [`serve()`](crate::serve()) adds the
    /// descriptors of the event loop to the poller, and waits for events.
    fn poller(&self) -> &Poller;

    /// Handles an event at the device's descriptor with this number. This method must not block.
    /// The number may belong to another descriptor now, because the device may have replaced the
    /// descriptor after the event.
    ///
    /// # Errors
    ///
    /// When the operating system fails, for instance for lack of memory.
    fn process(&mut self, number: u32) -> io::Result<()>;

    /// The time until the device's next deadline. `None` means that the device has no deadline.
    fn time_left(&self) -> Option<Duration> {
        None
    }

    /// Handles the deadlines that have passed. The event loop calls this method after each wait, if
    /// [`Device::time_left`] returned a time before the wait.
    fn keep_deadlines(&mut self) {}
}

/// A BAR that clients cannot map into their memory.
pub fn trapped_bar(size: u64) -> RegionInfo {
    RegionInfo {
        flags: RegionFlags::READ | RegionFlags::WRITE,
        size,
        ..RegionInfo::default()
    }
}

/// Resets the device and its function, as the request DEVICE_RESET does.
pub fn reset(device: &mut impl Device) {
    debug!("device is reset");
    device.reset();
    let function = device.function();
    function.config.reset();
    function.msix.reset();
    if let Some(intx) = &function.intx {
        intx.reset();
    }
}

/// Resets the device and its function, and drops everything that came from the client.
pub fn disconnect(device: &mut impl Device) {
    reset(device);
    let function = device.function();
    function.msix.disconnect();
    if let Some(intx) = &function.intx {
        intx.disconnect();
    }
    unmap(device, DmaUnmap::All);
    device.replace_io_event_fds();
    device.function().blocked.clear();
}

fn unmap(device: &mut impl Device, request: DmaUnmap) {
    let Some((first, last)) = dma::addresses(request) else {
        return;
    };
    device.give_memory_up(first, last);
    device.function().dma.unmap(first, last);
    device.give_memory_up(first, last);
    device.memory_changed();
}

/// Carries out a client's request, and replies.
///
/// # Errors
///
/// [`ServerError`]. The caller then has to drop the connection.
pub fn answer(
    device: &mut impl Device,
    connection: &mut Connection,
    request: Request,
) -> Result<(), ServerError> {
    let refused = match request {
        Request::DeviceInfo => return connection.reply_device(&DEVICE_INFO),
        Request::RegionInfo(region) => match region_info(device.function(), region) {
            Ok(info) => return connection.reply_region(&info),
            Err(errno) => errno,
        },
        Request::RegionIoFds(region) => match io_event_fds(device, region) {
            Ok(entries) => return connection.reply_io_fds(&entries),
            Err(errno) => errno,
        },
        Request::IrqInfo(kind) => match irq_info(device.function(), kind) {
            Ok(info) => return connection.reply_irq(&info),
            Err(errno) => errno,
        },
        Request::RegionRead {
            region,
            offset,
            len,
        } => match read(device, region, offset, len) {
            Ok(data) => return connection.reply_data(&data),
            Err(errno) => errno,
        },
        request => match obey(device, request) {
            Ok(()) => return connection.reply_done(),
            Err(errno) => errno,
        },
    };
    connection.reply_error(refused)
}

/// Carries out a client's request whose reply has no payload.
fn obey(device: &mut impl Device, request: Request) -> Result<(), Errno> {
    match request {
        Request::RegionWrite(access) => write(device, &access),
        Request::RegionWriteMulti(accesses) => {
            accesses.iter().try_for_each(|access| write(device, access))
        }
        Request::DmaMap(map) => {
            device.function().dma.map(map)?;
            device.memory_changed();
            Ok(())
        }
        Request::DmaUnmap(request) => {
            unmap(device, request);
            Ok(())
        }
        Request::SetIrqs(set) if set.index == index::MSIX => {
            set_irqs(device.function().msix.lines(), set)
        }
        Request::SetIrqs(set) if set.index == index::INTX => match &device.function().intx {
            Some(intx) => set_irqs(slice::from_ref(intx), set),
            None if set.count == 0 => Ok(()),
            None => Err(Errno::INVAL),
        },
        // A request with the count 0 disables all interrupts of a kind. It succeeds even if the
        // function has no such interrupts.
        Request::SetIrqs(set) if set.count == 0 => Ok(()),
        Request::Reset => {
            reset(device);
            Ok(())
        }
        _ => Err(Errno::INVAL),
    }
}

const DEVICE_INFO: DeviceInfo = DeviceInfo {
    flags: DeviceFlags::PCI.union(DeviceFlags::RESET),
    regions: index::REGIONS,
    irqs: index::IRQS,
};

/// Describes a region. Regions that the function does not have are empty.
fn region_info(function: &Function, region: u32) -> Result<RegionInfo, Errno> {
    match region {
        index::CONFIG => Ok(trapped_bar(config_space::SIZE as u64)),
        0..index::REGIONS => {
            let bar = function.bars.get(region as usize).cloned();
            Ok(bar.unwrap_or_default())
        }
        _ => Err(Errno::INVAL),
    }
}

/// Describes the interrupts of one kind. Refuses to describe the interrupt that reports errors of
/// PCI Express, as the VFIO of Linux does.
fn irq_info(function: &Function, kind: u32) -> Result<IrqInfo, Errno> {
    match kind {
        index::MSIX => Ok(IrqInfo {
            flags: IrqFlags::EVENTFD | IrqFlags::MASKABLE,
            count: function.msix.count().into(),
        }),
        index::INTX if function.intx.is_some() => Ok(IrqInfo {
            flags: IrqFlags::EVENTFD | IrqFlags::MASKABLE | IrqFlags::AUTOMASKED,
            count: 1,
        }),
        0..index::IRQS if kind != index::ERROR => Ok(IrqInfo::default()),
        _ => Err(Errno::INVAL),
    }
}

fn io_event_fds(device: &impl Device, region: u32) -> Result<Vec<IoEventFd>, Errno> {
    match region {
        0..=5 => Ok(device.io_event_fds(region as usize)),
        _ => Err(Errno::INVAL),
    }
}

/// Refuses an access that ends outside the region.
fn check(function: &Function, region: u32, offset: u64, len: usize) -> Result<(), Errno> {
    let info = region_info(function, region)?;
    let end = offset.checked_add(len as u64);
    match end {
        Some(end) if end <= info.size => Ok(()),
        _ => Err(Errno::INVAL),
    }
}

fn read(device: &mut impl Device, region: u32, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
    check(device.function(), region, offset, len)?;
    let mut data = vec![0; len];
    if region != index::CONFIG {
        device.bar_read(region as usize, offset, &mut data);
    } else if let Some((bar, place)) = window(device.function(), offset, len) {
        device.bar_read(bar, place, &mut data);
    } else {
        device.function().config.read(offset, &mut data);
    }
    Ok(data)
}

fn write(device: &mut impl Device, access: &RegionWrite) -> Result<(), Errno> {
    let (region, offset, data) = (access.region, access.offset, &access.data[..]);
    check(device.function(), region, offset, data.len())?;
    if region != index::CONFIG {
        device.bar_write(region as usize, offset, data);
    } else if let Some((bar, place)) = window(device.function(), offset, data.len()) {
        device.bar_write(bar, place, data);
    } else if device.function().config.is_reset(offset, data) {
        reset(device);
    } else {
        device.function().write_config(offset, data);
    }
    Ok(())
}

/// Software can access BARs through the data field of a capability in configuration space (virtio
/// 1.2, section 4.1.4.9). For an access to this field, returns the number of the BAR and the offset
/// in the BAR. Returns `None` for all other accesses.
fn window(function: &Function, offset: u64, len: usize) -> Option<(usize, u64)> {
    let at = function.window? as u64;
    let mut fields = [0; 16];
    function.config.read(at, &mut fields);
    let word = |at: usize| {
        let bytes = [fields[at], fields[at + 1], fields[at + 2], fields[at + 3]];
        u32::from_le_bytes(bytes)
    };
    let (bar, place, size) = (u32::from(fields[4]), word(8), word(12) as usize);
    let meant = offset == at + 16 && len == size && matches!(size, 1 | 2 | 4);
    let inside = bar < 6 && check(function, bar, place.into(), len).is_ok();
    (meant && inside).then_some((bar as usize, place.into()))
}
