//! Reads requests from descriptor chains (virtio 1.2, section 5.2.6).

use virtio::chain::MAX_PIECES;
use virtio::{BufferError, Chain, GuestMemory};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};

use crate::operation::{Range, SECTOR_SIZE};

mod ranges;

pub(crate) use ranges::{Change, ChangedRange, MAX_RANGE_SECTORS, MAX_RANGES};

/// Length in bytes of the disk's identity string, which is padded with NUL.
pub const ID_LEN: usize = VIRTIO_BLK_ID_BYTES as usize;

/// Length in bytes of a request's header: the fields `type`, `reserved` and `sector`.
pub(crate) const HEADER_LEN: u64 = 16;

/// Length in bytes of the status, the last field of every request.
pub(crate) const STATUS_LEN: u64 = 1;

/// The limits for requests to an image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Size of the disk in bytes.
    pub size: u64,
    /// Whether the disk is read-only.
    pub read_only: bool,
    /// The alignment in bytes of ranges to discard, zero or erase. Reads and writes need only whole
    /// sectors.
    pub logical_block: u32,
    /// Whether the device offers discard.
    pub discard: bool,
    /// Whether the device offers write zeroes.
    pub write_zeroes: bool,
    /// Whether the device offers secure erase.
    pub secure_erase: bool,
}

/// A valid request, ready to be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Reads a range of the disk into the writable buffers. The status follows the data.
    Read(Range),
    /// Writes data to a range of the disk. In the readable buffers, the data follows the header.
    Write(Range),
    /// Puts the data of all acknowledged writes on stable storage.
    Flush,
    /// Copies the first `len` bytes of the identity string into the writable buffers.
    GetId { len: usize },
    /// Discards, zeroes or erases these ranges of the disk.
    Change(Change, Vec<ChangedRange>),
}

/// The status of a request, which is its last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Status {
    Ok = VIRTIO_BLK_S_OK as u8,
    IoErr = VIRTIO_BLK_S_IOERR as u8,
    Unsupported = VIRTIO_BLK_S_UNSUPP as u8,
}

impl Status {
    /// The status of a request that failed with an I/O error.
    pub fn of_error(error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            // The errno means that the storage does not support the operation.
            Some(libc::EOPNOTSUPP) => Self::Unsupported,
            _ => Self::IoErr,
        }
    }
}

/// The reason why a request is refused. The error concerns only this request, and the device
/// continues to serve the vring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BlockRefusal {
    #[error("there is no writable byte for the status")]
    NoStatus,
    #[error("the header is shorter than {HEADER_LEN} bytes")]
    ShortHeader,
    #[error("a buffer is outside of the driver's memory")]
    OutsideMemory,
    #[error("the buffers are in more than {MAX_PIECES} pieces of memory")]
    TooManyPieces,
    #[error("the data buffers have the wrong direction")]
    Direction,
    #[error("{0} bytes are not whole sectors")]
    PartialSector(u64),
    #[error("{len} bytes at sector {sector} are not inside the disk")]
    OutOfRange { sector: u64, len: u64 },
    #[error("the disk is read-only")]
    ReadOnly,
    #[error("request type {0} is unknown")]
    Unsupported(u32),
    #[error("a list of {0} bytes does not hold 1 to {MAX_RANGES} ranges")]
    RangeList(u64),
    #[error("a range of {0} sectors is longer than {MAX_RANGE_SECTORS}")]
    RangeTooLong(u32),
    #[error("a range is not aligned to blocks of {0} bytes")]
    Misaligned(u32),
    #[error("this type of request has no flags {0:#x}")]
    Flags(u32),
    #[error("an earlier flush failed, so writes may be lost")]
    LostWrites,
    #[error("the operating system refuses the operation: {0}")]
    Engine(std::io::ErrorKind),
}

impl From<BufferError> for BlockRefusal {
    fn from(error: BufferError) -> Self {
        match error {
            BufferError::TooManyPieces => Self::TooManyPieces,
            _ => Self::OutsideMemory,
        }
    }
}

impl BlockRefusal {
    /// The status for the driver.
    pub fn status(self) -> Status {
        match self {
            Self::Unsupported(_) | Self::Flags(_) => Status::Unsupported,
            _ => Status::IoErr,
        }
    }
}

impl Request {
    /// Reads the header once and checks the request. The engine checks later that the data buffers
    /// of reads and writes are inside the driver's memory.
    pub fn parse(
        chain: &Chain,
        memory: &GuestMemory,
        limits: &Limits,
    ) -> Result<Self, BlockRefusal> {
        let Some(data_in) = chain.writable.len().checked_sub(STATUS_LEN) else {
            return Err(BlockRefusal::NoStatus);
        };
        let Some(data_out) = chain.readable.len().checked_sub(HEADER_LEN) else {
            return Err(BlockRefusal::ShortHeader);
        };
        let header = RequestHeader::read(chain, memory)?;
        if let Some(change) = Change::of(header.kind) {
            let ranges = change.parse(header.kind, chain, memory, limits)?;
            return match data_in {
                0 => Ok(Self::Change(change, ranges)),
                _ => Err(BlockRefusal::Direction),
            };
        }
        match header.kind {
            VIRTIO_BLK_T_IN | VIRTIO_BLK_T_GET_ID if data_out != 0 => Err(BlockRefusal::Direction),
            VIRTIO_BLK_T_OUT if data_in != 0 => Err(BlockRefusal::Direction),
            VIRTIO_BLK_T_OUT if limits.read_only => Err(BlockRefusal::ReadOnly),
            VIRTIO_BLK_T_IN => Ok(Self::Read(limits.range(header.sector, data_in)?)),
            VIRTIO_BLK_T_OUT => Ok(Self::Write(limits.range(header.sector, data_out)?)),
            VIRTIO_BLK_T_FLUSH => Ok(Self::Flush),
            VIRTIO_BLK_T_GET_ID => Ok(Self::GetId {
                len: data_in.min(ID_LEN as u64) as usize,
            }),
            kind => Err(BlockRefusal::Unsupported(kind)),
        }
    }
}

impl Limits {
    fn range(&self, sector: u64, len: u64) -> Result<Range, BlockRefusal> {
        if !len.is_multiple_of(SECTOR_SIZE) {
            return Err(BlockRefusal::PartialSector(len));
        }
        let out_of_range = BlockRefusal::OutOfRange { sector, len };
        let offset = sector.checked_mul(SECTOR_SIZE).ok_or(out_of_range)?;
        let end = offset.checked_add(len).ok_or(out_of_range)?;
        if end > self.size {
            return Err(out_of_range);
        }
        Ok(Range { offset, len })
    }
}

/// The fields of `struct virtio_blk_req` that this device uses.
struct RequestHeader {
    kind: u32,
    sector: u64,
}

impl RequestHeader {
    fn read(chain: &Chain, memory: &GuestMemory) -> Result<Self, BlockRefusal> {
        let mut bytes = [0; HEADER_LEN as usize];
        chain.readable.read(memory, 0, &mut bytes)?;
        let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = bytes;
        Ok(Self {
            kind: u32::from_le_bytes([k0, k1, k2, k3]),
            sector: u64::from_le_bytes(sector),
        })
    }
}

#[cfg(test)]
mod tests;
