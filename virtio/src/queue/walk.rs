//! The way along a descriptor chain, in which the driver may lie anywhere.

use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use vm_memory::GuestAddress;

use super::{MAX_INDIRECT, QueueError};
use crate::ring::{DESCRIPTOR_SIZE, Descriptor, SplitRing};
use crate::{Chain, GuestMemory, Segment};

const NEXT: u16 = VRING_DESC_F_NEXT as u16;
const WRITE: u16 = VRING_DESC_F_WRITE as u16;
const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

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
        let head = chain.head;
        let first = table.get(self, head)?;
        if first.flags & INDIRECT == 0 {
            return self.along(table, head, self.size, chain);
        }
        // A chain has either one indirect table or none: this also rules out NEXT beside INDIRECT.
        if !self.indirect || first.flags != INDIRECT {
            return Err(QueueError::BadIndirect);
        }
        self.along(
            Table::indirect(&first)?,
            0,
            self.size.max(MAX_INDIRECT),
            chain,
        )
    }

    fn along(
        &self,
        table: Table,
        first: u16,
        budget: u16,
        chain: &mut Chain,
    ) -> Result<(), QueueError> {
        let mut index = first;
        for _ in 0..budget {
            let descriptor = table.get(self, index)?;
            take(chain, &descriptor)?;
            if descriptor.flags & NEXT == 0 {
                return Ok(());
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
    fn indirect(descriptor: &Descriptor) -> Result<Self, QueueError> {
        let bytes = descriptor.len;
        if bytes == 0 || u64::from(bytes) % DESCRIPTOR_SIZE != 0 {
            return Err(QueueError::IndirectLength(bytes));
        }
        Ok(Self {
            start: Some(descriptor.addr),
            len: bytes / DESCRIPTOR_SIZE as u32,
        })
    }

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

fn take(chain: &mut Chain, descriptor: &Descriptor) -> Result<(), QueueError> {
    let segment = Segment {
        addr: descriptor.addr,
        len: descriptor.len,
    };
    if descriptor.flags & INDIRECT != 0 {
        return Err(QueueError::BadIndirect);
    }
    if descriptor.flags & WRITE != 0 {
        chain.writable.push(segment);
        return Ok(());
    }
    if !chain.writable.is_empty() {
        return Err(QueueError::Order);
    }
    chain.readable.push(segment);
    Ok(())
}
