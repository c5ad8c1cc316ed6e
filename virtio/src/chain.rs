//! Descriptor chains. A descriptor chain names the buffers of one request.

use std::ops::Range;

use libc::iovec;
use vm_memory::bitmap::BS;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryError, Permissions, VolatileSlice};

use crate::GuestMemory;
use crate::memory::MemoryLost;
use crate::segment::{Inaccessible, Segment};

pub use crate::segment::{MAX_PIECES, clear};

/// A contiguous range of the driver's memory, mapped into this process.
type Slice<'a> = VolatileSlice<'a, BS<'a, ()>>;

/// Either all readable or all writable buffers of a chain, as one sequence of bytes.
///
/// The driver may divide the sequence into buffers at any byte, so a device addresses bytes only by
/// their offset in the sequence.
#[derive(Debug, Default)]
pub struct Segments {
    segments: Vec<Segment>,
    len: u64,
}

/// One request: the bytes that the driver gives to the device, and the buffers for the answer.
///
/// A device uses one `Chain` for many requests, one after another, so that a busy queue does not
/// allocate memory.
#[derive(Debug, Default)]
pub struct Chain {
    /// The number that identifies the chain when the device gives the chain back. The number is
    /// below the queue's size.
    pub head: u16,
    /// The buffers that the device may only read.
    pub readable: Segments,
    /// The buffers that the device may only write.
    pub writable: Segments,
}

/// The reason for which the bytes of a chain cannot be accessed. Only this chain's request fails,
/// and the device can continue to serve the ring.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BufferError {
    /// The access goes past the last readable or writable byte of the chain.
    #[error("{expected} bytes are needed of a chain that has {actual}")]
    Short {
        /// The end of the accessed bytes: an offset in the chain's readable or writable bytes.
        expected: u64,
        /// The number of the chain's readable or writable bytes.
        actual: u64,
    },
    /// A buffer is not in memory, or the buffer's memory does not allow the access.
    #[error("a buffer is outside of memory")]
    OutsideMemory(#[source] GuestMemoryError),
    /// A page of the driver's memory was missing, so the bytes that were read cannot be trusted.
    #[error(transparent)]
    MemoryLost(#[from] MemoryLost),
    /// The buffers are in more than [`MAX_PIECES`] separate ranges of memory.
    #[error("buffers are in more than {MAX_PIECES} pieces")]
    TooManyPieces,
}

impl Chain {
    /// Removes all buffers. Call this method after the device has given the request back.
    pub fn clear(&mut self) {
        self.readable.clear();
        self.writable.clear();
    }

    /// The number of entries in the lists of this chain. An entry is a buffer or, behind an IOMMU,
    /// the part of a buffer in one mapping.
    pub fn pieces(&self) -> usize {
        self.readable.segments.len() + self.writable.segments.len()
    }

    /// The readable and the writable segments. The caller may replace the segments of a list by
    /// other segments with the same bytes in the same order.
    pub(crate) fn lists_mut(&mut self) -> [&mut Vec<Segment>; 2] {
        [&mut self.readable.segments, &mut self.writable.segments]
    }
}

impl Segments {
    /// Removes all buffers.
    pub fn clear(&mut self) {
        clear(&mut self.segments);
        self.len = 0;
    }

    /// Replaces the buffers by a copy of the buffers of `other`. Allocates memory only if the
    /// list's capacity is too small.
    pub fn copy(&mut self, other: &Self) {
        self.clear();
        self.segments.extend_from_slice(&other.segments);
        self.len = other.len;
    }

    /// Appends a segment, unless the segment is empty.
    pub(crate) fn push(&mut self, segment: Segment) {
        if segment.len == 0 {
            return;
        }
        self.segments.push(segment);
        self.len += u64::from(segment.len);
    }

    /// Total length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the total length is 0.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The segments that hold the bytes `offset..offset + len`. The first and the last segment are
    /// shortened to these bytes.
    pub(crate) fn range(&self, offset: u64, len: u64) -> impl Iterator<Item = Segment> + '_ {
        let end = offset.saturating_add(len);
        let mut position = 0;
        let inside = self.segments.iter().map_while(move |segment| {
            let first = position;
            position += u64::from(segment.len);
            (first < end).then_some((first, segment))
        });
        inside.filter_map(move |(first, segment)| {
            let last = first + u64::from(segment.len);
            let (from, to) = (first.max(offset), last.min(end));
            (from < to).then(|| Segment {
                // The sum wraps only for a segment that crosses the end of the 64-bit address
                // space. A wrapped address is checked like any other address.
                addr: GuestAddress(segment.addr.0.wrapping_add(from - first)),
                len: (to - from) as u32,
                ..*segment
            })
        })
    }

    /// Calls `visit` for each contiguous slice of memory that holds some of the bytes
    /// `offset..offset + len`. The arguments are the slice, and the positions of the slice's bytes.
    /// The byte at `offset` has position 0.
    fn visit<'a>(
        &self,
        memory: &'a GuestMemory,
        access: Permissions,
        (offset, len): (u64, u64),
        mut visit: impl FnMut(Slice<'a>, Range<usize>) -> Result<(), BufferError>,
    ) -> Result<(), BufferError> {
        let expected = offset.saturating_add(len);
        if expected > self.len {
            let actual = self.len;
            return Err(BufferError::Short { expected, actual });
        }
        let mut done = 0;
        let mut visit = |slice: Slice<'a>| {
            let begin = done;
            done += slice.len();
            visit(slice, begin..done)
        };
        for segment in self.range(offset, len) {
            check(&segment, access)?;
            let (regions, len) = (memory.regions(), segment.len as usize);
            // A segment is usually in one region. For such a segment, `get_slice` is the fastest
            // way.
            if let Ok(slice) = regions.get_slice(segment.addr, len) {
                visit(slice)?;
                continue;
            }
            for slice in regions.get_slices(segment.addr, len) {
                visit(slice.map_err(BufferError::OutsideMemory)?)?;
            }
        }
        Ok(())
    }

    /// Copies bytes from the buffers into `data`. The first byte is at `offset` in the sequence of
    /// all buffers. `memory` has to be the memory of the queue that the chain came from.
    ///
    /// # Errors
    ///
    /// [`BufferError`]. Some bytes of `data` may have changed.
    pub fn read(
        &self,
        memory: &GuestMemory,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), BufferError> {
        let range = (offset, data.len() as u64);
        self.visit(memory, Permissions::Read, range, |slice, at| {
            slice.copy_to(&mut data[at]);
            Ok(())
        })?;
        // Lost memory reads as zeros, and the device must not act on these zeros.
        Ok(memory.check()?)
    }

    /// Copies `data` into the buffers. The first byte goes to `offset` in the sequence of all
    /// buffers. `memory` has to be the memory of the queue that the chain came from.
    ///
    /// # Errors
    ///
    /// [`BufferError`]. Some bytes may have been written.
    pub fn write(&self, memory: &GuestMemory, offset: u64, data: &[u8]) -> Result<(), BufferError> {
        let range = (offset, data.len() as u64);
        self.visit(memory, Permissions::Write, range, |slice, at| {
            slice.copy_from(&data[at]);
            Ok(())
        })
    }

    /// Appends to `out` pointers to the bytes `offset..offset + len` in this process, for a system
    /// call that reads or writes these bytes. The system call fails if the memory does not allow
    /// the access. `memory` has to be the memory of the queue that the chain came from. The
    /// pointers are valid as long as `memory` lives.
    ///
    /// # Errors
    ///
    /// [`BufferError`]. `out` may have new entries.
    pub fn iovecs(
        &self,
        memory: &GuestMemory,
        offset: u64,
        len: u64,
        out: &mut Vec<iovec>,
    ) -> Result<(), BufferError> {
        self.visit(memory, Permissions::No, (offset, len), |slice, _| {
            if out.len() >= MAX_PIECES {
                return Err(BufferError::TooManyPieces);
            }
            out.push(iovec {
                iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                iov_len: slice.len(),
            });
            Ok(())
        })
    }
}

/// Checks that the memory of a segment allows an access.
fn check(segment: &Segment, access: Permissions) -> Result<(), BufferError> {
    match segment.access {
        Ok(allowed) if allowed.allow(access) => Ok(()),
        Err(Inaccessible::TooManyPieces) => Err(BufferError::TooManyPieces),
        Ok(_) | Err(Inaccessible::OutsideMemory) => {
            let error = GuestMemoryError::InvalidGuestAddress(segment.addr);
            Err(BufferError::OutsideMemory(error))
        }
    }
}

#[cfg(test)]
mod tests;
