//! Payloads that describe the device. The server sends them to the client.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use ipc::SharedEventFd;

use crate::types::{
    Area, DeviceFlags, DeviceInfo, IoEventFd, IrqFlags, IrqInfo, RegionFlags, RegionInfo,
};
use crate::wire::{Fields, Payload};

/// Length of `struct vfio_device_info` and of `struct vfio_irq_info` in messages.
pub(crate) const INFO_SIZE: u32 = 16;
/// Length of `struct vfio_region_info`.
pub(crate) const REGION_INFO_SIZE: u32 = 32;
/// `VFIO_REGION_INFO_CAP_SPARSE_MMAP`.
const CAP_SPARSE_MMAP: u16 = 1;
/// The maximum number of capabilities that are read from one region's list.
const MAX_CAPS: usize = 16;
/// Length of the fixed part of a reply to DEVICE_GET_REGION_IO_FDS.
const IO_FDS_SIZE: u32 = 16;
/// Length of an entry in a reply to DEVICE_GET_REGION_IO_FDS.
const IO_FD_SIZE: u32 = 40;
/// Offset of the type in an entry of a reply to DEVICE_GET_REGION_IO_FDS.
const IO_FD_TYPE: usize = 20;
/// `VFIO_USER_IO_FD_TYPE_IOEVENTFD`.
const TYPE_IOEVENTFD: u32 = 0;
/// `KVM_IOEVENTFD_FLAG_DATAMATCH`.
const FLAG_DATAMATCH: u32 = 1;

pub(crate) fn encode_device(info: &DeviceInfo) -> Payload {
    Payload::default()
        .u32(INFO_SIZE)
        .u32(info.flags.bits())
        .u32(info.regions)
        .u32(info.irqs)
}

pub(crate) fn decode_device(payload: &[u8]) -> Option<DeviceInfo> {
    let mut fields = Fields(payload);
    fields.skip(4)?;
    Some(DeviceInfo {
        flags: DeviceFlags::from_bits_retain(fields.u32()?),
        regions: fields.u32()?,
        irqs: fields.u32()?,
    })
}

pub(crate) fn encode_irq(index: u32, info: &IrqInfo) -> Payload {
    Payload::default()
        .u32(INFO_SIZE)
        .u32(info.flags.bits())
        .u32(index)
        .u32(info.count)
}

pub(crate) fn decode_irq(payload: &[u8]) -> Option<IrqInfo> {
    let mut fields = Fields(payload);
    fields.skip(4)?;
    let flags = IrqFlags::from_bits_retain(fields.u32()?);
    fields.skip(4)?;
    let count = fields.u32()?;
    Some(IrqInfo { flags, count })
}

/// The reply to DEVICE_GET_REGION_INFO. If it would be longer than `argsz` bytes, the list of areas
/// is left out. The reply always states the length that it has with the list.
pub(crate) fn encode_region(index: u32, info: &RegionInfo, argsz: u32) -> Payload {
    let list = match info.areas.as_slice() {
        [] => Vec::new(),
        _ if info.is_mapped_whole() => Vec::new(),
        areas => encode_areas(areas),
    };
    let needed = REGION_INFO_SIZE + list.len() as u32;
    let mut flags = info.flags;
    flags.set(RegionFlags::MMAP, !info.areas.is_empty());
    flags.set(RegionFlags::CAPS, !list.is_empty());
    let fits = !list.is_empty() && argsz >= needed;
    let payload = Payload::default()
        .u32(needed)
        .u32(flags.bits())
        .u32(index)
        // QEMU expects the offset of the list of capabilities even if the list is left out.
        .u32(if list.is_empty() { 0 } else { REGION_INFO_SIZE })
        .u64(info.size)
        .u64(info.offset);
    if fits { payload.bytes(&list) } else { payload }
}

fn encode_areas(areas: &[Area]) -> Vec<u8> {
    let (version, next) = (1, 0);
    let header = Payload::default()
        .u16(CAP_SPARSE_MMAP)
        .u16(version)
        .u32(next)
        .u32(areas.len() as u32)
        .u32(0);
    let append = |list: Payload, area: &Area| list.u64(area.offset).u64(area.size);
    areas.iter().fold(header, append).0
}

/// Reads a whole reply to DEVICE_GET_REGION_INFO, without the file. `None` when the reply is cut
/// off, the list of capabilities is too long or extends past the end of the reply, or an area
/// extends past the end of the region.
pub(crate) fn decode_region(payload: &[u8]) -> Option<RegionInfo> {
    let mut fields = Fields(payload);
    fields.skip(4)?;
    let mut flags = RegionFlags::from_bits_retain(fields.u32()?);
    fields.skip(4)?;
    let caps = fields.u32()?;
    let (size, offset) = (fields.u64()?, fields.u64()?);
    let areas = match flags.contains(RegionFlags::MMAP) && size > 0 {
        true if flags.contains(RegionFlags::CAPS) => find_areas(payload, caps, size)?,
        true => vec![Area { offset: 0, size }],
        false => Vec::new(),
    };
    let inside = |area: &Area| {
        let end = area.offset.checked_add(area.size);
        end.is_some_and(|end| end <= size && end.checked_add(offset).is_some())
    };
    flags.remove(RegionFlags::CAPS);
    areas.iter().all(inside).then_some(RegionInfo {
        flags,
        size,
        offset,
        areas,
        file: None,
    })
}

/// The areas in the list of capabilities that begins at `first`. A list without the capability for
/// areas (sparse mmap) means that all `size` bytes of the region can be mapped.
fn find_areas(payload: &[u8], first: u32, size: u64) -> Option<Vec<Area>> {
    let mut next = first as usize;
    for _ in 0..MAX_CAPS {
        if next == 0 {
            return Some(vec![Area { offset: 0, size }]);
        }
        let mut fields = Fields(payload.get(next..)?);
        let id = fields.u16()?;
        fields.skip(2)?;
        next = fields.u32()? as usize;
        if id == CAP_SPARSE_MMAP {
            return decode_areas(fields);
        }
    }
    None
}

fn decode_areas(mut fields: Fields<'_>) -> Option<Vec<Area>> {
    let count = fields.u32()? as usize;
    fields.skip(4)?;
    let list = fields
        .bytes(count.checked_mul(16)?)?
        .chunks_exact(16)
        .map(Fields);
    list.map(|mut area| {
        Some(Area {
            offset: area.u64()?,
            size: area.u64()?,
        })
    })
    .collect()
}

/// The reply to DEVICE_GET_REGION_IO_FDS and its file descriptors. If the entries together need
/// more than `max_fds` descriptors, the reply has only the first entries. If the reply would be
/// longer than `argsz` bytes, all its entries are left out. The reply always states the length that
/// it has with these entries.
pub(crate) fn encode_io_fds<'a>(
    index: u32,
    entries: &'a [IoEventFd],
    argsz: u32,
    max_fds: usize,
) -> (Payload, Vec<BorrowedFd<'a>>) {
    let mut eventfds: Vec<&Arc<SharedEventFd>> = Vec::new();
    let mut list = Payload::default();
    for entry in entries {
        let mut known = eventfds.iter();
        let known = known.position(|eventfd| Arc::ptr_eq(eventfd, &entry.eventfd));
        let fd_index = known.unwrap_or(eventfds.len());
        if fd_index == max_fds {
            break;
        }
        if known.is_none() {
            eventfds.push(&entry.eventfd);
        }
        list = list
            .u64(entry.offset)
            .u64(entry.size)
            .u32(fd_index as u32)
            .u32(TYPE_IOEVENTFD)
            .u32(entry.datamatch.map_or(0, |_| FLAG_DATAMATCH))
            .u32(0)
            .u64(entry.datamatch.unwrap_or(0));
    }
    let count = list.0.len() as u32 / IO_FD_SIZE;
    let needed = IO_FDS_SIZE + list.0.len() as u32;
    let header = Payload::default().u32(needed).u32(0).u32(index).u32(count);
    if argsz < needed {
        return (header, Vec::new());
    }
    let fds = eventfds
        .into_iter()
        .map(|eventfd| eventfd.as_fd())
        .collect();
    (header.bytes(&list.0), fds)
}

/// The length in bytes of the whole reply to DEVICE_GET_REGION_IO_FDS, as the fixed part of the
/// reply states it.
pub(crate) fn io_fds_needed(payload: &[u8]) -> Option<u32> {
    Fields(payload).u32()
}

/// Reads a whole reply to DEVICE_GET_REGION_IO_FDS. Entries other than ioeventfds are left out.
/// `None` when the reply is cut off, or refers to a descriptor that is missing or not an eventfd.
pub(crate) fn decode_io_fds(payload: &[u8], fds: Vec<OwnedFd>) -> Option<Vec<IoEventFd>> {
    // A file that is not an eventfd is no error here, because an entry of another type may use it.
    let eventfds = fds.into_iter().map(|fd| SharedEventFd::from_fd(fd).ok());
    let eventfds: Vec<_> = eventfds.map(|eventfd| eventfd.map(Arc::new)).collect();
    let mut fields = Fields(payload);
    fields.skip(12)?;
    let count = fields.u32()? as usize;
    let list = fields.bytes(count.checked_mul(IO_FD_SIZE as usize)?)?;
    let entries = list.chunks_exact(IO_FD_SIZE as usize).map(Fields);
    entries
        .filter(|entry| entry.0[IO_FD_TYPE..].starts_with(&TYPE_IOEVENTFD.to_le_bytes()))
        .map(|entry| decode_io_fd(entry, &eventfds))
        .collect()
}

fn decode_io_fd(
    mut entry: Fields<'_>,
    eventfds: &[Option<Arc<SharedEventFd>>],
) -> Option<IoEventFd> {
    let (offset, size) = (entry.u64()?, entry.u64()?);
    let fd_index = entry.u32()?;
    entry.skip(4)?;
    let flags = entry.u32()?;
    entry.skip(4)?;
    let value = entry.u64()?;
    Some(IoEventFd {
        offset,
        size,
        eventfd: eventfds.get(fd_index as usize)?.clone()?,
        datamatch: (flags & FLAG_DATAMATCH != 0).then_some(value),
    })
}

#[cfg(test)]
mod tests;
