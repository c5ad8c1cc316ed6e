//! Requests of a client to the device. A request is checked only as far as is possible without
//! knowledge of the device.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::channel::Packet;
use crate::codec::{INFO_SIZE, REGION_INFO_SIZE};
use crate::types::DmaFlags;
use crate::wire::{Command, Fields, MAX_DATA};

/// The maximum number of interrupts in one request. The largest MSI-X table has the same number of
/// vectors.
const MAX_IRQS: u32 = 2048;
/// The maximum number of writes in one REGION_WRITE_MULTI. QEMU has the same limit.
const MAX_WRITES: u64 = 200;
/// The maximum length of each write in a REGION_WRITE_MULTI, in bytes.
const MAX_SMALL_WRITE: usize = 8;
/// `VFIO_DMA_UNMAP_FLAG_ALL`.
const UNMAP_ALL: u32 = 2;

/// A request of a client. The request may name a region or an interrupt that the device does not
/// have. [`Connection::reply_done`](super::Connection::reply_done) answers a request whose
/// documentation names no other method.
#[derive(Debug)]
pub enum Request {
    /// Lets the device access memory.
    DmaMap(DmaMap),
    /// Ends the device's access to memory.
    DmaUnmap(DmaUnmap),
    /// Asks for the kind of the device, the number of its regions, and the number of its interrupt
    /// kinds. [`Connection::reply_device`](super::Connection::reply_device) answers this request.
    DeviceInfo,
    /// Asks for the description of the region with this number.
    /// [`Connection::reply_region`](super::Connection::reply_region) answers this request.
    RegionInfo(u32),
    /// Asks for the eventfds that the client can signal instead of writing to the region with this
    /// number. [`Connection::reply_io_fds`](super::Connection::reply_io_fds) answers this request.
    RegionIoFds(u32),
    /// Asks for the description of the interrupts of this kind.
    /// [`Connection::reply_irq`](super::Connection::reply_irq) answers this request.
    IrqInfo(u32),
    /// Sets up, masks, unmasks or triggers interrupts.
    SetIrqs(SetIrqs),
    /// Reads from a region. [`Connection::reply_data`](super::Connection::reply_data) answers this
    /// request.
    RegionRead {
        /// Number of the region.
        region: u32,
        /// Offset in the region, in bytes.
        offset: u64,
        /// Number of bytes to read.
        len: usize,
    },
    /// Writes to a region.
    RegionWrite(RegionWrite),
    /// Makes several writes to regions, in the order of the list.
    RegionWriteMulti(Vec<RegionWrite>),
    /// Resets the device.
    Reset,
}

/// A range of addresses that the device may access. The range is not empty and ends below 2^64.
#[derive(Debug)]
pub struct DmaMap {
    /// First address of the range.
    pub address: u64,
    /// Length of the range in bytes.
    pub size: u64,
    /// Offset in the file at which the range begins, in bytes.
    pub offset: u64,
    /// The kinds of access that the device may make to the range.
    pub flags: DmaFlags,
    /// The file that has the memory. `None` means that the device has to ask the client for each
    /// access.
    pub fd: Option<OwnedFd>,
}

/// A range of addresses that the device may no longer access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaUnmap {
    /// All ranges of addresses.
    All,
    /// This range of addresses. The range may end beyond 2^64, and it may differ from every mapped
    /// range.
    Range {
        /// First address of the range.
        address: u64,
        /// Length of the range in bytes.
        size: u64,
    },
}

/// A write to a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionWrite {
    /// Number of the region.
    pub region: u32,
    /// Offset in the region, in bytes.
    pub offset: u64,
    /// The bytes to write.
    pub data: Vec<u8>,
}

/// An action on the interrupts `start..start + count` of one kind.
#[derive(Debug)]
pub struct SetIrqs {
    /// The kind of interrupts (see [`crate::index`]).
    pub index: u32,
    /// Number of the first interrupt.
    pub start: u32,
    /// Number of interrupts. With [`IrqData::None`] and [`IrqAction::Trigger`], the number 0
    /// disables all interrupts of the kind.
    pub count: u32,
    /// The action on the interrupts: mask, unmask or trigger.
    pub action: IrqAction,
    /// The interrupts that the action applies to, or the eventfds that the action uses.
    pub data: IrqData,
}

/// An action on interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqAction {
    /// Masks the interrupts.
    Mask,
    /// Unmasks the interrupts.
    Unmask,
    /// Triggers the interrupts.
    Trigger,
}

/// The data of an action on interrupts.
#[derive(Debug)]
pub enum IrqData {
    /// The action applies immediately, to all interrupts of the request.
    None,
    /// The action applies immediately, to the interrupts whose entry is `true`. Each interrupt of
    /// the request has an entry.
    Bool(Vec<bool>),
    /// The eventfds of the interrupts. With [`IrqAction::Trigger`], the server signals the eventfd
    /// each time the interrupt is triggered. With the other actions, the client signals the eventfd
    /// to mask or unmask the interrupt. `None` removes the former eventfd. Each interrupt of the
    /// request has an entry.
    EventFds(Vec<Option<OwnedFd>>),
}

/// The reason why a message is not a valid request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The message does not have the layout of its command.
    Malformed,
    /// The message asks for an impossible or unsupported operation. The reply reports the errno.
    Unacceptable(Errno),
}

const INVALID: Refusal = Refusal::Unacceptable(Errno::INVAL);

impl Request {
    pub(super) fn decode(command: Command, mut packet: Packet) -> Result<Self, Refusal> {
        let fds = std::mem::take(&mut packet.fds);
        let takes_fds = matches!(command, Command::DmaMap | Command::DeviceSetIrqs);
        if !takes_fds && !fds.is_empty() {
            return Err(Refusal::Malformed);
        }
        let fields = Fields(packet.payload());
        match command {
            Command::DmaMap => dma_map(fields, fds).map(Self::DmaMap),
            Command::DmaUnmap => dma_unmap(fields).map(Self::DmaUnmap),
            Command::DeviceGetInfo => index(fields, INFO_SIZE).map(|_| Self::DeviceInfo),
            Command::DeviceGetRegionInfo => index(fields, REGION_INFO_SIZE).map(Self::RegionInfo),
            Command::DeviceGetRegionIoFds => index(fields, INFO_SIZE).map(Self::RegionIoFds),
            Command::DeviceGetIrqInfo => index(fields, INFO_SIZE).map(Self::IrqInfo),
            Command::DeviceSetIrqs => set_irqs(fields, fds).map(Self::SetIrqs),
            Command::RegionRead => region_read(fields),
            Command::RegionWrite => region_write(fields).map(Self::RegionWrite),
            Command::RegionWriteMulti => write_multi(fields).map(Self::RegionWriteMulti),
            Command::DeviceReset => Ok(Self::Reset),
            Command::Version => Err(Refusal::Malformed),
            Command::DmaRead | Command::DmaWrite => Err(Refusal::Unacceptable(Errno::OPNOTSUPP)),
        }
    }
}

/// Reads the maximum length of the reply (argsz), flags and an index. Returns the index.
fn index(mut fields: Fields<'_>, smallest: u32) -> Result<u32, Refusal> {
    let argsz = fields.u32().ok_or(Refusal::Malformed)?;
    fields.skip(4).ok_or(Refusal::Malformed)?;
    let index = fields.u32().ok_or(Refusal::Malformed)?;
    if argsz < smallest {
        return Err(INVALID);
    }
    Ok(index)
}

fn dma_map(mut fields: Fields<'_>, mut fds: Vec<OwnedFd>) -> Result<DmaMap, Refusal> {
    let mut read = || {
        fields.skip(4)?;
        let flags = DmaFlags::from_bits_retain(fields.u32()?);
        let (offset, address, size) = (fields.u64()?, fields.u64()?, fields.u64()?);
        Some(DmaMap {
            address,
            size,
            offset,
            flags,
            fd: None,
        })
    };
    let map = read().ok_or(Refusal::Malformed)?;
    if fds.len() > 1 {
        return Err(Refusal::Malformed);
    }
    let fits = |start: u64| start.checked_add(map.size).is_some();
    if map.size == 0 || !fits(map.address) || !fits(map.offset) {
        return Err(INVALID);
    }
    Ok(DmaMap {
        fd: fds.pop(),
        ..map
    })
}

fn dma_unmap(mut fields: Fields<'_>) -> Result<DmaUnmap, Refusal> {
    let mut read = || {
        fields.skip(4)?;
        Some((fields.u32()?, fields.u64()?, fields.u64()?))
    };
    let (flags, address, size) = read().ok_or(Refusal::Malformed)?;
    match flags {
        0 => Ok(DmaUnmap::Range { address, size }),
        UNMAP_ALL => Ok(DmaUnmap::All),
        _ => Err(INVALID),
    }
}

fn region_read(fields: Fields<'_>) -> Result<Request, Refusal> {
    let (region, offset, len, _) = access(fields).ok_or(Refusal::Malformed)?;
    if len > MAX_DATA {
        return Err(INVALID);
    }
    Ok(Request::RegionRead {
        region,
        offset,
        len,
    })
}

fn region_write(fields: Fields<'_>) -> Result<RegionWrite, Refusal> {
    let (region, offset, len, data) = access(fields).ok_or(Refusal::Malformed)?;
    if len != data.len() || len > MAX_DATA {
        return Err(Refusal::Malformed);
    }
    Ok(RegionWrite {
        region,
        offset,
        data: data.to_vec(),
    })
}

fn access(mut fields: Fields<'_>) -> Option<(u32, u64, usize, &[u8])> {
    let offset = fields.u64()?;
    let region = fields.u32()?;
    let len = fields.u32()? as usize;
    Some((region, offset, len, fields.0))
}

fn write_multi(mut fields: Fields<'_>) -> Result<Vec<RegionWrite>, Refusal> {
    let count = fields.u64().ok_or(Refusal::Malformed)?;
    if count > MAX_WRITES {
        return Err(Refusal::Malformed);
    }
    (0..count).map(|_| small_write(&mut fields)).collect()
}

fn small_write(fields: &mut Fields<'_>) -> Result<RegionWrite, Refusal> {
    let entry = fields
        .bytes(16 + MAX_SMALL_WRITE)
        .ok_or(Refusal::Malformed)?;
    let (region, offset, len, data) = access(Fields(entry)).ok_or(Refusal::Malformed)?;
    let data = data.get(..len).ok_or(Refusal::Malformed)?.to_vec();
    Ok(RegionWrite {
        region,
        offset,
        data,
    })
}

fn set_irqs(mut fields: Fields<'_>, fds: Vec<OwnedFd>) -> Result<SetIrqs, Refusal> {
    let mut head = || {
        fields.skip(4)?;
        Some([fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?])
    };
    let [flags, index, start, count] = head().ok_or(Refusal::Malformed)?;
    if start > MAX_IRQS || count > MAX_IRQS {
        return Err(INVALID);
    }
    let action = match flags & !0x7 {
        0x08 => IrqAction::Mask,
        0x10 => IrqAction::Unmask,
        0x20 => IrqAction::Trigger,
        _ => return Err(INVALID),
    };
    let no_fds = fds.is_empty();
    let data = match flags & 0x7 {
        1 if no_fds => IrqData::None,
        2 if no_fds => {
            let bytes = fields.bytes(count as usize).ok_or(Refusal::Malformed)?;
            IrqData::Bool(bytes.iter().map(|byte| *byte != 0).collect())
        }
        4 if no_fds => IrqData::EventFds((0..count).map(|_| None).collect()),
        4 if fds.len() == count as usize => IrqData::EventFds(fds.into_iter().map(Some).collect()),
        _ => return Err(INVALID),
    };
    Ok(SetIrqs {
        index,
        start,
        count,
        action,
        data,
    })
}
