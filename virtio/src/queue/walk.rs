//! The way along a descriptor chain, in which the driver may lie anywhere.

use vm_memory::GuestAddress;

use super::{MAX_INDIRECT, QueueError};
use crate::ring::{DESCRIPTOR_SIZE, Descriptor, INDIRECT, NEXT, SplitRing, WRITE};
use crate::{Chain, GuestMemory, Segment};

/// Where descriptors come from, and whether they may be elsewhere.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub ring: &'a SplitRing,
    pub memory: &'a GuestMemory,
    /// The queue's size.
    pub size: u16,
    /// Indirect tables were negotiated.
    pub indirect: bool,
}

impl Source<'_> {
    /// Collects the buffers of the chain that begins with `chain.head`.
    pub fn walk(&self, chain: &mut Chain) -> Result<(), QueueError> {
        let table = Table {
            start: None,
            len: u32::from(self.size),
        };
        let Some(more) = self.along(table, chain.head, self.size, chain)? else {
            return Ok(());
        };
        if !self.indirect || more.flags & NEXT != 0 {
            return Err(QueueError::BadIndirect);
        }
        let (start, len) = indirect_table(more.buffer)?;
        let table = Table {
            start: Some(start),
            len,
        };
        match self.along(table, 0, self.size.max(MAX_INDIRECT), chain)? {
            None => Ok(()),
            Some(_) => Err(QueueError::BadIndirect),
        }
    }

    /// Collects buffers up to the end of the chain, or to the descriptor of an indirect table.
    fn along(
        &self,
        table: Table,
        first: u16,
        budget: u16,
        chain: &mut Chain,
    ) -> Result<Option<Descriptor>, QueueError> {
        let mut index = first;
        for _ in 0..budget {
            let descriptor = table.get(self, index)?;
            if descriptor.flags & INDIRECT != 0 {
                return Ok(Some(descriptor));
            }
            take(chain, descriptor.buffer, descriptor.flags)?;
            if descriptor.flags & NEXT == 0 {
                return Ok(None);
            }
            index = descriptor.next;
        }
        Err(QueueError::ChainTooLong(budget))
    }
}

/// A descriptor table.
#[derive(Clone, Copy)]
struct Table {
    /// `None`: it is the ring's own.
    start: Option<GuestAddress>,
    len: u32,
}

impl Table {
    fn get(&self, source: &Source<'_>, index: u16) -> Result<Descriptor, QueueError> {
        let len = self.len;
        if u32::from(index) >= len {
            return Err(QueueError::DescriptorIndex { index, len });
        }
        match self.start {
            None => source.ring.descriptor(index),
            Some(start) => Descriptor::read(source.memory, start, index),
        }
    }
}

/// Where the indirect table in this buffer begins, and how many entries it has.
pub(super) fn indirect_table(buffer: Segment) -> Result<(GuestAddress, u32), QueueError> {
    let bytes = buffer.len;
    if bytes == 0 || u64::from(bytes) % DESCRIPTOR_SIZE != 0 {
        return Err(QueueError::IndirectLength(bytes));
    }
    Ok((buffer.addr, bytes / DESCRIPTOR_SIZE as u32))
}

/// Adds a buffer whose descriptor has these flags.
pub(super) fn take(chain: &mut Chain, buffer: Segment, flags: u16) -> Result<(), QueueError> {
    if flags & WRITE != 0 {
        chain.writable.push(buffer);
        return Ok(());
    }
    if !chain.writable.is_empty() {
        return Err(QueueError::Order);
    }
    chain.readable.push(buffer);
    Ok(())
}
