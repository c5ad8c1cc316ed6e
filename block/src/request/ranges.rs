//! Requests that change ranges of the disk but carry no data: discard, write zeroes and secure
//! erase (virtio 1.2, section 5.2.6).

use virtio::{Chain, GuestMemory};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_SECURE_ERASE, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

use super::{BlockRefusal, HEADER_LEN, Limits};
use crate::operation::{Range, SECTOR_SIZE};

/// Maximum number of ranges in a request.
pub(crate) const MAX_RANGES: u32 = 32;

/// Maximum number of sectors in a range. A range has at most 2 GiB, so that one request does not
/// occupy the storage for long.
pub(crate) const MAX_RANGE_SECTORS: u32 = 1 << 22;

/// Length in bytes of `struct virtio_blk_discard_write_zeroes`.
const SEGMENT_LEN: u64 = 16;

const UNMAP: u32 = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;

/// The change that a request makes to its ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The driver no longer needs the content of the ranges.
    Discard,
    /// Later reads of the ranges return zeroes.
    WriteZeroes,
    /// The content of the ranges is erased, so that nobody can recover it.
    SecureErase,
}

/// One range of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChangedRange {
    pub range: Range,
    /// Whether the device may free the space of the range.
    pub unmap: bool,
}

impl Change {
    /// The change for a request type. `None` if requests of this type do not change ranges.
    pub fn of(kind: u32) -> Option<Self> {
        match kind {
            VIRTIO_BLK_T_DISCARD => Some(Self::Discard),
            VIRTIO_BLK_T_WRITE_ZEROES => Some(Self::WriteZeroes),
            VIRTIO_BLK_T_SECURE_ERASE => Some(Self::SecureErase),
            _ => None,
        }
    }

    fn is_offered(self, limits: &Limits) -> bool {
        match self {
            Self::Discard => limits.discard,
            Self::WriteZeroes => limits.write_zeroes,
            Self::SecureErase => limits.secure_erase,
        }
    }

    /// The flags that the driver may set in each range of a request for this change.
    fn allowed_flags(self) -> u32 {
        match self {
            Self::WriteZeroes => UNMAP,
            Self::Discard | Self::SecureErase => 0,
        }
    }

    /// Reads the ranges from the driver's memory once and checks them. Leaves out empty ranges.
    pub fn parse(
        self,
        kind: u32,
        chain: &Chain,
        memory: &GuestMemory,
        limits: &Limits,
    ) -> Result<Vec<ChangedRange>, BlockRefusal> {
        if !self.is_offered(limits) {
            return Err(BlockRefusal::Unsupported(kind));
        }
        let len = chain.readable.len() - HEADER_LEN;
        let count = len / SEGMENT_LEN;
        if count == 0 || count > MAX_RANGES.into() || !len.is_multiple_of(SEGMENT_LEN) {
            return Err(BlockRefusal::RangeList(len));
        }
        let mut ranges = Vec::with_capacity(count as usize);
        for index in 0..count {
            let mut bytes = [0; SEGMENT_LEN as usize];
            let at = HEADER_LEN + index * SEGMENT_LEN;
            chain.readable.read(memory, at, &mut bytes)?;
            ranges.push(self.range(bytes, limits)?);
        }
        ranges.retain(|changed| changed.range.len > 0);
        Ok(ranges)
    }

    fn range(
        self,
        bytes: [u8; SEGMENT_LEN as usize],
        limits: &Limits,
    ) -> Result<ChangedRange, BlockRefusal> {
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = bytes;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes(flags);
        if flags & !self.allowed_flags() != 0 {
            return Err(BlockRefusal::Flags(flags));
        }
        if sectors > MAX_RANGE_SECTORS {
            return Err(BlockRefusal::RangeTooLong(sectors));
        }
        let range = limits.range(sector, u64::from(sectors) * SECTOR_SIZE)?;
        let block = u64::from(limits.logical_block);
        if !range.offset.is_multiple_of(block) || !range.len.is_multiple_of(block) {
            return Err(BlockRefusal::Misaligned(limits.logical_block));
        }
        let unmap = flags & UNMAP != 0;
        Ok(ChangedRange { range, unmap })
    }
}

#[cfg(test)]
mod tests;
