//! Collects the descriptors of a chain, in which the driver may lie anywhere.

use super::{MAX_DESCRIPTORS, QueueError};
use crate::Chain;
use crate::ring::{Descriptor, WRITE};

/// A chain that is being collected.
#[derive(Debug)]
pub(super) struct Collector<'a> {
    chain: &'a mut Chain,
    /// Descriptors so far.
    taken: u16,
    /// The most that there may be, so that also a chain that goes round in a circle ends.
    most: u16,
}

impl<'a> Collector<'a> {
    /// Begins with the descriptors in a ring of this size, no more of which belong to one chain.
    pub fn new(chain: &'a mut Chain, size: u16) -> Self {
        Self {
            chain,
            taken: 0,
            most: size.min(MAX_DESCRIPTORS),
        }
    }

    /// Goes on in an indirect table. Drivers size these by the device's segment limit, so that a
    /// table may have more descriptors than the ring.
    pub fn enter_table(&mut self) {
        self.most = MAX_DESCRIPTORS;
    }

    /// The number of descriptors so far.
    pub fn taken(&self) -> u16 {
        self.taken
    }

    /// The given number of descriptors, if the chain may have so many more.
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
