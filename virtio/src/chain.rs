//! Descriptor chains: the buffers of one request.

use libc::iovec;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::GuestMemory;

/// One buffer of a chain. Its range was not checked against the memory yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First guest-physical address.
    pub addr: GuestAddress,
    /// Length in bytes, never 0.
    pub len: u32,
}

/// The buffers of a chain that go in one direction, seen as one sequence of bytes.
///
/// The driver may cut this sequence at any byte, so a device addresses it by offset only.
#[derive(Clone, Debug, Default)]
pub struct Segments {
    segments: Vec<Segment>,
    len: u64,
}

/// One request: what the driver wants read, then what it wants written.
///
/// Kept by its user and filled anew for each request, so that a busy queue does not allocate.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// Names the chain when it is given back; below the queue's size.
    pub head: u16,
    /// The buffers that the device may only read.
    pub readable: Segments,
    /// The buffers that the device may only write.
    pub writable: Segments,
}

impl Chain {
    pub(crate) fn clear(&mut self, head: u16) {
        self.head = head;
        self.readable.clear();
        self.writable.clear();
    }
}

impl Segments {
    fn clear(&mut self) {
        self.segments.clear();
        self.len = 0;
    }

    /// Appends a segment; an empty one holds no bytes and is left out.
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

    /// True when there is not a single byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The buffers that hold bytes `offset..offset + len`, cut to that range; short when the
    /// sequence ends before.
    pub fn range(&self, offset: u64, len: u64) -> impl Iterator<Item = Segment> + '_ {
        let end = offset.saturating_add(len);
        let mut position = 0;
        self.segments.iter().filter_map(move |segment| {
            let first = position;
            position += u64::from(segment.len);
            let from = first.max(offset);
            let to = position.min(end);
            (from < to).then(|| Segment {
                // Wraps only for a range that is outside every memory region, which access refuses.
                addr: GuestAddress(segment.addr.0.wrapping_add(from - first)),
                len: (to - from) as u32,
            })
        })
    }

    /// Copies bytes out of the driver's memory from `offset` on.
    ///
    /// # Errors
    ///
    /// When the sequence is too short or an address is outside `memory`.
    pub fn read(
        &self,
        memory: &GuestMemory,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), GuestMemoryError> {
        let mut rest = &mut data[..];
        for segment in self.range(offset, rest.len() as u64) {
            let (part, tail) = rest.split_at_mut(segment.len as usize);
            memory.read_slice(part, segment.addr)?;
            rest = tail;
        }
        complete(rest.len(), data.len())
    }

    /// Copies bytes into the driver's memory from `offset` on.
    ///
    /// # Errors
    ///
    /// When the sequence is too short or an address is outside `memory`.
    pub fn write(
        &self,
        memory: &GuestMemory,
        offset: u64,
        data: &[u8],
    ) -> Result<(), GuestMemoryError> {
        let mut rest = data;
        for segment in self.range(offset, rest.len() as u64) {
            let (part, tail) = rest.split_at(segment.len as usize);
            memory.write_slice(part, segment.addr)?;
            rest = tail;
        }
        complete(rest.len(), data.len())
    }

    /// Appends to `out` where bytes `offset..offset + len` are in this process, for the kernel to
    /// read or write. The pointers are valid as long as `memory` is.
    ///
    /// # Errors
    ///
    /// When the sequence is too short or an address is outside `memory`; `out` may have grown.
    pub fn iovecs(
        &self,
        memory: &GuestMemory,
        offset: u64,
        len: u64,
        out: &mut Vec<iovec>,
    ) -> Result<(), GuestMemoryError> {
        let mut missing = len;
        for segment in self.range(offset, len) {
            missing -= u64::from(segment.len);
            for slice in memory.locate(segment.addr, segment.len as usize)? {
                let slice = slice?;
                out.push(iovec {
                    iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                    iov_len: slice.len(),
                });
            }
        }
        complete(missing as usize, len as usize)
    }
}

fn complete(missing: usize, expected: usize) -> Result<(), GuestMemoryError> {
    match missing {
        0 => Ok(()),
        _ => Err(GuestMemoryError::PartialBuffer {
            expected,
            completed: expected - missing,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_utils::memory;

    fn segments(parts: &[(u64, u32)]) -> Segments {
        let mut segments = Segments::default();
        for &(addr, len) in parts {
            segments.push(Segment {
                addr: GuestAddress(addr),
                len,
            });
        }
        segments
    }

    #[test]
    fn reads_and_writes_across_cuts() {
        let memory = memory(0x4000);
        let parts = segments(&[(0x100, 3), (0x200, 0), (0x300, 1), (0x400, 10)]);
        assert_eq!(parts.len(), 14);
        parts.write(&memory, 2, b"abcdef").unwrap();
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0x102)).unwrap(), b'a');
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0x300)).unwrap(), b'b');
        let mut back = [0; 6];
        parts.read(&memory, 2, &mut back).unwrap();
        assert_eq!(&back, b"abcdef");
    }

    #[test]
    fn a_short_sequence_is_an_error() {
        let memory = memory(0x4000);
        let parts = segments(&[(0x100, 3)]);
        assert!(parts.write(&memory, 1, b"abc").is_err());
        assert!(parts.read(&memory, u64::MAX, &mut [0; 1]).is_err());
        assert!(parts.iovecs(&memory, 0, 4, &mut Vec::new()).is_err());
    }

    #[test]
    fn addresses_outside_memory_are_errors() {
        let memory = memory(0x4000);
        for addr in [0x3fff, 0x4000, u64::MAX, u64::MAX - 1] {
            let parts = segments(&[(addr, 2)]);
            assert!(parts.read(&memory, 0, &mut [0; 2]).is_err(), "{addr:#x}");
            assert!(
                parts.iovecs(&memory, 0, 2, &mut Vec::new()).is_err(),
                "{addr:#x}"
            );
        }
    }

    #[test]
    fn iovecs_cover_exactly_the_range() {
        let memory = memory(0x4000);
        let parts = segments(&[(0x100, 16), (0x300, 16)]);
        let mut iovecs = Vec::new();
        parts.iovecs(&memory, 8, 16, &mut iovecs).unwrap();
        let lengths: Vec<_> = iovecs.iter().map(|v| v.iov_len).collect();
        assert_eq!(lengths, [8, 8]);
    }
}
