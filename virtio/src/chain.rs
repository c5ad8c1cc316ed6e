//! Descriptor chains: the buffers of one request.

use std::ops::Range;

use libc::iovec;
use vm_memory::bitmap::BS;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryError, Permissions, VolatileSlice};

use crate::GuestMemory;

/// Bytes of the driver's memory in one place.
type Slice<'a> = VolatileSlice<'a, BS<'a, ()>>;

/// The most pieces of memory that the buffers of one chain may lie in. A buffer has several where
/// it goes over the end of a region, or behind an IOMMU over the end of a mapping.
pub const MAX_PIECES: usize = 4096;

/// The capacity that [`clear`] leaves: more than most requests need, and little memory.
const KEPT_CAPACITY: usize = 256;

/// Empties a list that is kept for another request, and gives memory back that few requests need.
///
/// A driver may fill all of a queue with the largest requests once. Without this, each of them
/// would take its memory for as long as the queue is served.
pub fn clear<T>(list: &mut Vec<T>) {
    list.clear();
    list.shrink_to(KEPT_CAPACITY);
}

/// A buffer of a chain, or a piece of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The first address: the driver's when the segment comes from a descriptor, and the one in the
    /// regions of memory once a [`Queue`](crate::Queue) has handed the chain out.
    pub addr: GuestAddress,
    /// Length in bytes.
    pub len: u32,
    /// The accesses that are allowed. `None`: there is no memory, or it has too many pieces.
    pub access: Option<Permissions>,
}

/// The buffers of a chain that go in one direction, as one sequence of bytes.
///
/// The driver may cut this sequence at any byte, so a device addresses it by offset only.
#[derive(Debug, Default)]
pub struct Segments {
    segments: Vec<Segment>,
    len: u64,
}

/// One request: the bytes that the driver gives to the device, and the room for the answer.
///
/// A device keeps a chain and fills it again for each request, so that a busy queue does not
/// allocate.
#[derive(Debug, Default)]
pub struct Chain {
    /// Names the chain when it is given back; below the queue's size.
    pub head: u16,
    /// The buffers that the device may only read.
    pub readable: Segments,
    /// The buffers that the device may only write.
    pub writable: Segments,
}

/// Why the bytes of a chain cannot be accessed. It concerns one request, not its ring.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BufferError {
    /// The chain has fewer bytes in this direction.
    #[error("{expected} bytes are needed of a chain that has {actual}")]
    Short {
        /// Where the bytes end, from the start of the sequence.
        expected: u64,
        /// The length of the sequence.
        actual: u64,
    },
    /// A buffer is not in memory, or the memory is not for this access.
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
    /// A buffer as a descriptor has it.
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

    /// Makes this the same buffers as `other`, without an allocation where there is room for them.
    pub fn copy(&mut self, other: &Self) {
        self.clear();
        self.segments.extend_from_slice(&other.segments);
        self.len = other.len;
    }

    /// Appends a segment. An empty one holds no bytes and is left out.
    pub(crate) fn push(&mut self, segment: Segment) {
        if segment.len == 0 {
            return;
        }
        self.segments.push(segment);
        self.len += u64::from(segment.len);
    }

    /// All segments, to be replaced by others with the same bytes in the same order.
    pub(crate) fn segments_mut(&mut self) -> &mut Vec<Segment> {
        &mut self.segments
    }

    /// Total length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True when there is not a single byte.
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
                // Wraps only for a segment that no region holds, which is refused.
                addr: GuestAddress(segment.addr.0.wrapping_add(from - first)),
                len: (to - from) as u32,
                ..*segment
            })
        })
    }

    /// Calls `visit` with each piece of memory that bytes `offset..offset + len` lie in, and with
    /// the place of its bytes among them.
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
        for segment in self.range(offset, len) {
            segment.check(access)?;
            let len = segment.len as usize;
            for slice in memory.regions().get_slices(segment.addr, len) {
                let slice = slice.map_err(BufferError::OutsideMemory)?;
                let end = done + slice.len();
                visit(slice, done..end)?;
                done = end;
            }
        }
        Ok(())
    }

    /// Copies bytes out of the driver's memory from `offset` on. `memory` is the one of the queue
    /// that the chain came from.
    ///
    /// # Errors
    ///
    /// [`BufferError`]; some bytes of `data` may have changed.
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

    /// Copies bytes into the driver's memory from `offset` on. `memory` is the one of the queue
    /// that the chain came from.
    ///
    /// # Errors
    ///
    /// [`BufferError`]; some bytes may have been written.
    pub fn write(&self, memory: &GuestMemory, offset: u64, data: &[u8]) -> Result<(), BufferError> {
        let range = (offset, data.len() as u64);
        self.visit(memory, Permissions::Write, range, |slice, at| {
            slice.copy_from(&data[at]);
            Ok(())
        })
    }

    /// Appends to `out` where bytes `offset..offset + len` are in this process, for the kernel to
    /// read or write: it reports a failure where the memory is not for that. `memory` is the one of
    /// the queue that the chain came from, and the pointers are valid as long as it lives.
    ///
    /// # Errors
    ///
    /// [`BufferError`]; `out` may have grown.
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
