//! Chooses the path of a transfer's data: through the page cache, directly between the image and
//! the driver's memory, or through a private buffer. Owns the private buffers.

use std::io;
use std::slice;

use libc::iovec;
use memmap2::{MmapOptions, MmapRaw};

use virtio::{GuestMemory, Segments};

use super::transfer::Transfer;
use crate::image::Alignment;
use crate::operation::{Operation, Range};

/// The maximum size of all buffers of one engine together, in bytes.
const MAX_TOTAL: usize = 64 << 20;

/// The largest size of a buffer in bytes. Larger transfers go through the buffer in several steps.
const MAX_BUFFER: usize = 256 << 10;

/// The smallest size of a buffer in bytes. This is the size of a page, and alignment to pages is
/// sufficient for every device.
const MIN_BUFFER: usize = 4096;

/// The path of data between the image and the driver's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The data goes through the page cache.
    Cached,
    /// Direct I/O moves the data from or to the driver's memory.
    Direct,
    /// The data goes through the private buffer of the slot.
    Bounced,
}

impl Way {
    /// The best path for the data of a transfer. `pinnable` says whether the kernel can pin all of
    /// the driver's memory.
    pub fn of(alignment: Alignment, pinnable: bool, range: Range, iovecs: &[iovec]) -> Self {
        let fits = |iovec: &iovec| {
            let address = iovec.iov_base.addr() as u64;
            address.is_multiple_of(alignment.memory.into())
                && (iovec.iov_len as u64).is_multiple_of(alignment.image.into())
        };
        if !is_aligned(alignment, range) {
            Self::Cached
        } else if pinnable && iovecs.iter().all(fits) {
            Self::Direct
        } else {
            Self::Bounced
        }
    }
}

/// Whether a range of the image is aligned for direct I/O.
pub(super) fn is_aligned(alignment: Alignment, range: Range) -> bool {
    (range.offset | range.len).is_multiple_of(alignment.image.into())
}

/// One buffer for each slot of an engine. A buffer takes up memory only after its first use.
pub(super) struct Buffers {
    memory: MmapRaw,
    /// Length of one buffer in bytes.
    size: usize,
}

/// The state of a transfer through the buffer of its slot. The slot keeps this object for the next
/// transfer, so that a transfer does not allocate memory.
#[derive(Default)]
pub(super) struct Bounce {
    /// All of the driver's buffers for the transfer.
    segments: Segments,
    /// The offset, in the driver's buffers, of the first byte that is not transferred yet. `None`
    /// if the transfer does not go through the slot's buffer.
    at: Option<u64>,
}

impl Buffers {
    /// Makes one buffer for each of `slots` slots.
    pub fn new(slots: u16) -> io::Result<Self> {
        let slots = usize::from(slots.max(1));
        // The size is a power of two, because `MAX_TOTAL`, the divisor and both bounds are powers
        // of two.
        let size = (MAX_TOTAL / slots.next_power_of_two()).clamp(MIN_BUFFER, MAX_BUFFER);
        let mut options = MmapOptions::new();
        let memory = options.len(size * slots).no_reserve_swap().map_anon()?;
        Ok(Self {
            memory: memory.into(),
            size,
        })
    }

    /// The buffer of a slot. Callers use the buffer only while the slot has no call in flight,
    /// because a call in flight may access the buffer at any time.
    fn bytes(&mut self, slot: u16) -> &mut [u8] {
        let start = usize::from(slot) * self.size;
        assert!(start + self.size <= self.memory.len());
        // SAFETY: the range is inside the mapping, as was just checked. The mapping lives as long
        // as `self`, and its bytes are initialised, because the mapping starts as zeroes. `self` is
        // borrowed exclusively, and no call on this slot is in flight, so no other code accesses
        // the range.
        unsafe { slice::from_raw_parts_mut(self.memory.as_mut_ptr().add(start), self.size) }
    }
}

impl Bounce {
    /// Sets up a transfer of the bytes of `segments` from offset `skip` on.
    pub fn start(&mut self, segments: &Segments, skip: u64) {
        self.segments.copy(segments);
        self.at = Some(skip);
    }

    /// Resets the state after the end of a transfer.
    pub fn clear(&mut self) {
        if self.at.take().is_some() {
            self.segments.clear();
        }
    }

    /// Prepares the buffer for the next call of the transfer. For a write, copies the data to the
    /// buffer. Does nothing if the transfer does not go through the buffer.
    pub fn load(
        &self,
        buffers: &mut Buffers,
        slot: u16,
        memory: &GuestMemory,
        transfer: &mut Transfer,
    ) -> io::Result<()> {
        let Some(at) = self.at else {
            return Ok(());
        };
        let bytes = buffers.bytes(slot);
        let len = transfer.rest().len.min(bytes.len() as u64) as usize;
        let bytes = &mut bytes[..len];
        if transfer.operation != Operation::Read {
            let copied = self.segments.read(memory, at, bytes);
            copied.map_err(io::Error::other)?;
        }
        transfer.set_buffer(iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: len,
        });
        Ok(())
    }

    /// Takes the result of a call. If the call was a read, copies the data to the driver's memory.
    /// Returns the result, or a negated errno if the driver's memory cannot be written.
    pub fn unload(
        &mut self,
        buffers: &mut Buffers,
        slot: u16,
        memory: &GuestMemory,
        operation: Operation,
        result: i32,
    ) -> i32 {
        let (Some(at), Ok(count)) = (&mut self.at, usize::try_from(result)) else {
            return result;
        };
        let bytes = &buffers.bytes(slot)[..count];
        if operation == Operation::Read && self.segments.write(memory, *at, bytes).is_err() {
            return -libc::EFAULT;
        }
        *at += count as u64;
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
    fn each_transfer_takes_the_best_way_that_its_alignment_allows() {
        assert_eq!(way(true, 512, &[(8, 512), (0x1000, 1024)]), Way::Direct);
        assert_eq!(way(false, 512, &[(8, 512)]), Way::Bounced);
        assert_eq!(way(true, 512, &[(9, 512)]), Way::Bounced);
        assert_eq!(way(true, 512, &[(8, 500), (0x1000, 12)]), Way::Bounced);
        assert_eq!(way(true, 511, &[(8, 512)]), Way::Cached);
        assert_eq!(way(true, 512, &[(8, 511)]), Way::Cached);
    }

    #[test]
    fn buffers_have_a_bounded_size_and_do_not_overlap() {
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
