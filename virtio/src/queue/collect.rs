//! Collects the descriptors of a chain. The driver is not trusted, so each field may be wrong.

use super::MAX_DESCRIPTORS;
use crate::ring::{Descriptor, WRITE};
use crate::{Chain, QueueError};

/// A chain whose descriptors are being collected.
#[derive(Debug)]
pub(super) struct Collector<'a> {
    chain: &'a mut Chain,
    /// The number of descriptors collected so far.
    taken: u16,
    /// The maximum number of descriptors. With this limit, the walk along a looping chain ends.
    most: u16,
}

impl<'a> Collector<'a> {
    /// Begins to collect a chain from a ring of `size` descriptors. A chain has at most `size`
    /// descriptors in the ring.
    pub fn new(chain: &'a mut Chain, size: u16) -> Self {
        Self {
            chain,
            taken: 0,
            most: size.min(MAX_DESCRIPTORS),
        }
    }

    /// Continues to collect the chain from an indirect table. A table may have more descriptors
    /// than the ring, because drivers derive the table's size from the device's segment limit.
    pub fn enter_table(&mut self) {
        self.most = MAX_DESCRIPTORS;
    }

    /// The number of descriptors collected so far.
    pub fn taken(&self) -> u16 {
        self.taken
    }

    /// Returns `count` if `count` more descriptors do not exceed the limit of the chain, and
    /// otherwise an error.
    pub fn fit(&self, count: u32) -> Result<u16, QueueError> {
        let room = self.most - self.taken;
        match u16::try_from(count) {
            Ok(count) if count <= room => Ok(count),
            _ => Err(QueueError::ChainTooLong(self.most)),
        }
    }

    /// Adds the buffer of a descriptor.
    pub fn take(&mut self, descriptor: &Descriptor) -> Result<(), QueueError> {
        if self.taken >= self.most {
            return Err(QueueError::ChainTooLong(self.most));
        }
        self.taken += 1;
        if descriptor.flags & WRITE != 0 {
            self.chain.writable.push(descriptor.buffer);
            return Ok(());
        }
        if !self.chain.writable.is_empty() {
            return Err(QueueError::Order);
        }
        self.chain.readable.push(descriptor.buffer);
        Ok(())
    }
}
