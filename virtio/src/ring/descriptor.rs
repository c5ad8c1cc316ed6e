//! Descriptors in a ring or in an indirect table.

use vm_memory::bitmap::BS;
use vm_memory::{Bytes, GuestAddress, Permissions, VolatileSlice};

use crate::segment::Segment;
use crate::{GuestMemory, QueueError};

/// The size of a descriptor in bytes.
const SIZE: u64 = 16;

/// The order of a descriptor's last two fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Flags, then the index of the next descriptor (virtio 1.2, section 2.7.5).
    Split,
    /// The chain's buffer id, then flags (virtio 1.2, section 2.8.13).
    Packed,
}

/// A descriptor, copied once from the driver's memory. The driver cannot change the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub buffer: Segment,
    pub flags: u16,
    /// In a split ring, the index of the next descriptor. In a packed ring, the chain's buffer id,
    /// which is valid only in the last descriptor of the chain.
    pub link: u16,
}

impl Descriptor {
    /// Decodes a descriptor from its two halves of 64 bits, which are little-endian as in the
    /// driver's memory.
    pub fn decode(layout: Layout, [addr, rest]: [u64; 2]) -> Self {
        let rest = u64::from_le(rest);
        let (third, fourth) = ((rest >> 32) as u16, (rest >> 48) as u16);
        let (flags, link) = match layout {
            Layout::Split => (third, fourth),
            Layout::Packed => (fourth, third),
        };
        Self {
            buffer: Segment::new(u64::from_le(addr), rest as u32),
            flags,
            link,
        }
    }
}

/// An indirect table: descriptors in a buffer.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    layout: Layout,
    memory: &'a GuestMemory,
    start: GuestAddress,
    len: u32,
    /// The contiguous slice of memory that begins with the table's first entry. The slice usually
    /// holds all entries.
    found: Option<VolatileSlice<'a, BS<'a, ()>>>,
}

impl<'a> Table<'a> {
    /// The table in the given buffer. If the table is contiguous in this process, its address in
    /// this process is looked up only once.
    pub fn new(
        layout: Layout,
        memory: &'a GuestMemory,
        buffer: Segment,
    ) -> Result<Self, QueueError> {
        let bytes = buffer.len;
        if bytes == 0 || u64::from(bytes) % SIZE != 0 {
            return Err(QueueError::IndirectLength(bytes));
        }
        Ok(Self {
            layout,
            memory,
            start: buffer.addr,
            len: bytes / SIZE as u32,
            found: memory.first_slice(buffer.addr, bytes as usize, Permissions::Read),
        })
    }

    /// Number of descriptors in the table.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Copies an entry out of the driver's memory.
    pub fn get(&self, index: u16) -> Result<Descriptor, QueueError> {
        let len = self.len;
        if u32::from(index) >= len {
            return Err(QueueError::DescriptorIndex { index, len });
        }
        let offset = u64::from(index) * SIZE;
        let found = self.found.as_ref();
        let halves = match found.map(|slice| slice.read_obj(offset as usize)) {
            Some(Ok(halves)) => halves,
            // The sum wraps only for a table that crosses the end of the 64-bit address space. A
            // wrapped address is checked like any other address.
            _ => self
                .memory
                .read_obj(GuestAddress(self.start.0.wrapping_add(offset)))?,
        };
        Ok(Descriptor::decode(self.layout, halves))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_decode_in_both_layouts() {
        let halves = [
            0x1122_3344_5566_7788u64.to_le(),
            0x0102_0304_0506_0708u64.to_le(),
        ];
        let buffer = Segment::new(0x1122_3344_5566_7788, 0x0506_0708);
        for (layout, flags, link) in [
            (Layout::Split, 0x0304, 0x0102),
            (Layout::Packed, 0x0102, 0x0304),
        ] {
            let expected = Descriptor {
                buffer,
                flags,
                link,
            };
            assert_eq!(Descriptor::decode(layout, halves), expected);
        }
    }
}
