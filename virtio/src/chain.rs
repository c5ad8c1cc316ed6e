//! Descriptor chains: the buffers of one request.

use std::ops::Range;

use libc::iovec;
use vm_memory::bitmap::BS;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryError, Permissions, VolatileSlice};

use crate::GuestMemory;

/// Bytes of the driver's memory in one place.
type Slice<'a> = VolatileSlice<'a, BS<'a, ()>>;

/// The maximum number of pieces of memory for the buffers of one chain. A buffer has several pieces
/// if it crosses the end of a region or, behind an IOMMU, the end of a mapping.
pub const MAX_PIECES: usize = 4096;

/// The list capacity that [`clear`] leaves. Most requests need less, and this many entries take
/// little memory.
const KEPT_CAPACITY: usize = 256;

/// Empties a list that the next request uses again, and frees memory that only unusually large
/// requests need.
///
/// A driver may fill a queue once with requests of the maximum size. Without this function, the
/// lists of all these requests would keep their memory for as long as the queue is served.
pub fn clear<T>(list: &mut Vec<T>) {
    list.clear();
    list.shrink_to(KEPT_CAPACITY);
}

/// A buffer of a chain, or a piece of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The segment's first address. In a segment from a descriptor, this is the driver's address.
    /// Once a [`Queue`](crate::Queue) has handed the chain out, it is an address in the regions of
    /// memory.
    pub addr: GuestAddress,
    /// Length in bytes.
    pub len: u32,
    /// The accesses that the device may make. `None` if the segment is not in memory, or is in too
    /// many pieces.
    pub access: Option<Permissions>,
}

/// All readable or all writable buffers of a chain, as one sequence of bytes.
///
/// The driver may cut this sequence at any byte, so a device addresses it by offset only.
#[derive(Debug, Default)]
pub struct Segments {
    segments: Vec<Segment>,
    len: u64,
}

/// One request: the bytes that the driver gives to the device, and the room for the answer.
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

/// The reason for which the bytes of a chain cannot be accessed. Only this request fails: the ring
/// can still be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BufferError {
    /// The chain has too few bytes of this direction, readable or writable.
    #[error("{expected} bytes are needed of a chain that has {actual}")]
    Short {
        /// The end of the accessed bytes, counted from the start of the sequence.
        expected: u64,
        /// The length of the sequence.
        actual: u64,
    },
    /// A buffer is not in memory, or the memory does not allow this access.
    #[error("a buffer is outside of memory")]
    OutsideMemory(#[source] GuestMemoryError),
    /// The buffers have more than [`MAX_PIECES`] pieces.
    #[error("buffers are in more than {MAX_PIECES} pieces")]
    TooManyPieces,
}

impl Chain {
    /// Forgets the buffers of a request that has been given back.
    pub fn clear(&mut self) {
        self.readable.clear();
        self.writable.clear();
    }
}

impl Segment {
    /// A buffer as a descriptor names it. All accesses are allowed until the buffer's memory is
    /// looked up.
    pub fn new(addr: u64, len: u32) -> Self {
        Self {
            addr: GuestAddress(addr),
            len,
            access: Some(Permissions::ReadWrite),
        }
    }

    fn check(&self, access: Permissions) -> Result<(), BufferError> {
        if self.access.is_some_and(|allowed| allowed.allow(access)) {
            return Ok(());
        }
        let error = GuestMemoryError::InvalidGuestAddress(self.addr);
        Err(BufferError::OutsideMemory(error))
    }
}

impl Segments {
    /// Forgets all buffers.
    pub fn clear(&mut self) {
        clear(&mut self.segments);
        self.len = 0;
    }

    /// Replaces the buffers by a copy of those of `other`. Allocates only if the list is too short.
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

    /// All segments. The caller may replace them by other segments with the same bytes in the same
    /// order.
    pub(crate) fn segments_mut(&mut self) -> &mut Vec<Segment> {
        &mut self.segments
    }

    /// Total length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the sequence has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The segments that hold bytes `offset..offset + len`, cut to that range.
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
                // The sum wraps only for a segment outside all regions, and accesses to such a
                // segment fail.
                addr: GuestAddress(segment.addr.0.wrapping_add(from - first)),
                len: (to - from) as u32,
                ..*segment
            })
        })
    }

    /// Calls `visit` for each piece of memory that holds some of the bytes `offset..offset + len`.
    /// The arguments are the piece, and the positions of the piece's bytes, where the byte at
    /// `offset` has position 0.
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
            segment.check(access)?;
            let (regions, len) = (memory.regions(), segment.len as usize);
            // Usually a segment is in one region, and this finds it with the least work.
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

    /// Copies bytes out of the driver's memory from `offset` on. `memory` has to be the memory of
    /// the queue that the chain came from.
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
        })
    }

    /// Copies bytes into the driver's memory from `offset` on. `memory` has to be the memory of the
    /// queue that the chain came from.
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

    /// Appends to `out` the pointers to bytes `offset..offset + len` in this process, for system
    /// calls that read or write these bytes. The kernel reports a failure if the memory does not
    /// allow the access. `memory` has to be the memory of the queue that the chain came from, and
    /// the pointers are valid as long as `memory` lives.
    ///
    /// # Errors
    ///
    /// [`BufferError`]. `out` may have grown.
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

#[cfg(test)]
mod tests;
