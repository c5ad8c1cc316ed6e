//! Which way a transfer takes, and the buffers between direct I/O and memory that is not fit for it.

use std::io;
use std::slice;

use libc::iovec;
use memmap2::{MmapOptions, MmapRaw};

use virtio::{GuestMemory, Segments};

use crate::image::Alignment;
use crate::request::Range;
use crate::transfer::{Operation, Transfer};

/// The most memory of one engine's buffers.
const MAX_TOTAL: usize = 64 << 20;

/// The most memory of one buffer; larger transfers go through it piece by piece.
const MAX_BUFFER: usize = 256 << 10;

/// Pages are aligned enough for every device.
const MIN_BUFFER: usize = 4096;

/// A way between image and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Through the page cache.
    Cached,
    /// Directly from or to the driver's memory.
    Direct,
    /// Directly from or to a buffer of ours.
    Bounced,
}

impl Way {
    /// The best way for a transfer; `pinnable`: the kernel can pin all of the driver's memory.
    pub fn of(alignment: Alignment, pinnable: bool, range: Range, iovecs: &[iovec]) -> Self {
        let fits = |iovec: &iovec| {
            let address = iovec.iov_base.addr() as u64;
            address.is_multiple_of(alignment.memory.into())
                && (iovec.iov_len as u64).is_multiple_of(alignment.image.into())
        };
        match is_aligned(alignment, range) {
            false => Self::Cached,
            true if pinnable && iovecs.iter().all(fits) => Self::Direct,
            true => Self::Bounced,
        }
    }
}

/// Whether the image takes direct I/O on a range.
pub(super) fn is_aligned(alignment: Alignment, range: Range) -> bool {
    (range.offset | range.len).is_multiple_of(alignment.image.into())
}

/// One buffer for each slot of an engine, in memory that takes space once it is used.
pub(super) struct Buffers {
    memory: MmapRaw,
    /// Bytes of one buffer.
    size: usize,
}

/// A transfer that goes through its slot's buffer.
pub(super) struct Bounce {
    /// All of the driver's buffers.
    segments: Segments,
    /// How many of their bytes are done or belong to something else.
    at: u64,
}

impl Buffers {
    /// Buffers for so many slots.
    pub fn new(slots: u16) -> io::Result<Self> {
        let slots = usize::from(slots.max(1));
        // Both powers of two, as is their quotient, if the number of slots is made one.
        let size = (MAX_TOTAL / slots.next_power_of_two()).clamp(MIN_BUFFER, MAX_BUFFER);
        let mut options = MmapOptions::new();
        let memory = options.len(size * slots).no_reserve_swap().map_anon()?;
        Ok(Self {
            memory: memory.into(),
            size,
        })
    }

    /// The buffer of a slot, for as long as the kernel has nothing to do with it.
    fn bytes(&mut self, slot: u16) -> &mut [u8] {
        let start = usize::from(slot) * self.size;
        assert!(start + self.size <= self.memory.len());
        // SAFETY: the range is inside the mapping, which lives as long as `self`; bytes of any value
        // are valid; and `self` is borrowed. The engine asks only while the slot is not in flight.
        unsafe { slice::from_raw_parts_mut(self.memory.as_mut_ptr().add(start), self.size) }
    }
}

impl Bounce {
    /// For a transfer of the bytes of `segments` from `skip` on.
    pub fn new(segments: &Segments, skip: u64) -> Self {
        Self {
            segments: segments.clone(),
            at: skip,
        }
    }

    /// Sets the buffer up for the next piece of the transfer.
    pub fn begin(
        &self,
        buffers: &mut Buffers,
        slot: u16,
        memory: &GuestMemory,
        transfer: &mut Transfer,
    ) -> io::Result<()> {
        let bytes = buffers.bytes(slot);
        let len = transfer.rest().len.min(bytes.len() as u64) as usize;
        let bytes = &mut bytes[..len];
        if transfer.operation != Operation::Read {
            let copied = self.segments.read(memory, self.at, bytes);
            copied.map_err(io::Error::other)?;
        }
        transfer.set_buffer(iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: len,
        });
        Ok(())
    }

    /// Takes note of a system call's result, and passes on what it has read.
    pub fn end(
        &mut self,
        buffers: &mut Buffers,
        slot: u16,
        memory: &GuestMemory,
        operation: Operation,
        result: i32,
    ) -> i32 {
        let count = usize::try_from(result).unwrap_or(0);
        let bytes = &buffers.bytes(slot)[..count];
        if operation == Operation::Read && self.segments.write(memory, self.at, bytes).is_err() {
            return -libc::EFAULT;
        }
        self.at += count as u64;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr::without_provenance_mut;

    const ALIGNMENT: Alignment = Alignment {
        memory: 4,
        image: 512,
    };

    fn way(pinnable: bool, offset: u64, buffers: &[(usize, usize)]) -> Way {
        let iovec = |&(address, iov_len)| iovec {
            iov_base: without_provenance_mut(address),
            iov_len,
        };
        let iovecs: Vec<_> = buffers.iter().map(iovec).collect();
        let len = buffers.iter().map(|&(_, len)| len as u64).sum();
        Way::of(ALIGNMENT, pinnable, Range { offset, len }, &iovecs)
    }

    #[test]
    fn each_transfer_takes_the_best_way() {
        assert_eq!(way(true, 512, &[(8, 512), (0x1000, 1024)]), Way::Direct);
        assert_eq!(way(false, 512, &[(8, 512)]), Way::Bounced);
        assert_eq!(way(true, 512, &[(9, 512)]), Way::Bounced);
        assert_eq!(way(true, 512, &[(8, 500), (0x1000, 12)]), Way::Bounced);
        assert_eq!(way(true, 511, &[(8, 512)]), Way::Cached);
        assert_eq!(way(true, 512, &[(8, 511)]), Way::Cached);
    }

    #[test]
    fn buffers_are_bounded_and_apart() {
        for slots in [1, 3, 1024, u16::MAX] {
            let mut buffers = Buffers::new(slots).unwrap();
            assert!(buffers.size.is_power_of_two());
            assert!(buffers.size >= MIN_BUFFER && buffers.size <= MAX_BUFFER);
            let first = buffers.bytes(0).as_ptr().addr();
            assert!(first.is_multiple_of(4096));
            buffers.bytes(slots - 1).fill(7);
            if slots > 1 {
                assert!(buffers.bytes(slots - 2).iter().all(|&byte| byte == 0));
            }
        }
    }
}
