//! The device's side of a split virtqueue, for the mock device.

use std::sync::Arc;

use virtio::pci::NO_VECTOR;

use super::Profile;
use crate::pci::{DmaMemory, Scalar};

/// DMA memory and its I/O virtual address.
pub struct Dma {
    pub iova: u64,
    pub memory: Arc<DmaMemory>,
}

impl Dma {
    fn read<T: Scalar>(&self, address: u64) -> T {
        self.memory.read((address - self.iova) as usize)
    }

    fn write<T: Scalar>(&self, address: u64, value: T) {
        self.memory.write((address - self.iova) as usize, value);
    }
}

/// The error for a message that does not fit into the receive buffer.
#[derive(Debug)]
pub struct TooSmall;

/// A virtqueue of the mock device.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    pub size: u16,
    pub vector: u16,
    pub enabled: bool,
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
    pub notify_off: u16,
    /// Whether the device uses the most recently offered buffer first.
    pub newest_first: bool,
    pending: Vec<u16>,
    next_avail: u16,
    next_used: u16,
}

impl Ring {
    pub fn new(profile: &Profile, index: usize) -> Self {
        Self {
            size: profile.queue_size,
            vector: NO_VECTOR,
            notify_off: profile.notify_offs[index],
            ..Self::default()
        }
    }

    fn collect(&mut self, dma: &Dma) {
        if !self.enabled {
            return;
        }
        while dma.read::<u16>(self.avail + 2) != self.next_avail {
            let slot = u64::from(self.next_avail % self.size);
            self.pending.push(dma.read(self.avail + 4 + 2 * slot));
            self.next_avail = self.next_avail.wrapping_add(1);
        }
    }

    pub fn available(&mut self, dma: &Dma) -> u16 {
        self.collect(dma);
        self.pending.len() as u16
    }

    fn pop(&mut self, dma: &Dma) -> Option<(u16, u64, u32)> {
        self.collect(dma);
        let at = if self.newest_first {
            self.pending.len().checked_sub(1)?
        } else {
            0
        };
        let id = (at < self.pending.len()).then(|| self.pending.remove(at))?;
        let desc = self.desc + 16 * u64::from(id);
        assert_eq!(
            dma.read::<u16>(desc + 12) & 1,
            0,
            "chains have one descriptor"
        );
        Some((id, dma.read(desc), dma.read(desc + 8)))
    }

    pub fn put(&mut self, dma: &Dma, message: &[u8]) -> Result<bool, TooSmall> {
        let Some((id, address, len)) = self.pop(dma) else {
            return Ok(false);
        };
        if message.len() > len as usize {
            return Err(TooSmall);
        }
        dma.memory.copy_in((address - dma.iova) as usize, message);
        self.push_used(dma, u32::from(id), message.len() as u32, 1);
        Ok(true)
    }

    pub fn take(&mut self, dma: &Dma) -> Option<Vec<u8>> {
        let (id, address, len) = self.pop(dma)?;
        let offset = (address - dma.iova) as usize;
        let message = dma.memory.copy_out(offset, len as usize);
        // The used length should be 0 for a buffer that the device reads. Like some devices, the
        // mock reports the number of bytes that it read.
        self.push_used(dma, u32::from(id), len, 1);
        Some(message)
    }

    pub fn push_used(&mut self, dma: &Dma, id: u32, len: u32, steps: u16) {
        let slot = u64::from(self.next_used % self.size);
        dma.write(self.used + 4 + 8 * slot, id);
        dma.write(self.used + 8 + 8 * slot, len);
        self.next_used = self.next_used.wrapping_add(steps);
        dma.write(self.used + 2, self.next_used);
    }
}
