//! The driver's side of a split virtqueue (virtio 1.2, section 2.7). Each descriptor has its own
//! buffer, and all buffers have the same size.
//!
//! Descriptor i always describes buffer i, and every chain has one descriptor. The device may
//! return buffers in any order.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::pci::DmaMemory;

/// Length of a descriptor in bytes.
const DESC_SIZE: usize = 16;
/// The descriptor flag of a buffer that the device may write.
const WRITE: u16 = 2;
/// Alignment of the rings in bytes.
const ALIGNMENT: usize = 16;

/// The I/O virtual addresses of the parts of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLayout {
    /// The address of the descriptor table.
    pub desc: u64,
    /// The address of the driver area (available ring).
    pub avail: u64,
    /// The address of the device area (used ring).
    pub used: u64,
}

/// A buffer that the device has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The number of the buffer.
    pub id: u16,
    /// The number of bytes that the device claims to have written, at most the length of the
    /// buffer.
    pub len: usize,
}

/// An invalid entry of the used ring.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum UsedError {
    /// The device returned a buffer that the device did not have.
    #[error("the device returned buffer {0}, which it does not have")]
    NotInFlight(u32),
    /// The device claims to have written past the end of a buffer.
    #[error("the device says that it wrote {0} bytes to a buffer of {1}")]
    TooLong(u32, usize),
    /// The device returned more buffers than the queue has.
    #[error("the device returned {0} buffers at once; there are only {1}")]
    TooMany(u16, u16),
}

/// A virtqueue that lies in a part of DMA memory.
#[derive(Debug)]
pub struct DriverQueue {
    memory: Arc<DmaMemory>,
    /// The I/O virtual address of the DMA memory.
    iova: u64,
    offsets: Offsets,
    size: u16,
    buffer_size: usize,
    device_writes: bool,
    next_avail: u16,
    next_used: u16,
    in_flight: Vec<bool>,
}

/// The offsets of the parts of a queue in the DMA memory, in bytes.
#[derive(Clone, Copy, Debug)]
struct Offsets {
    desc: usize,
    avail: usize,
    used: usize,
    buffers: usize,
    end: usize,
}

impl Offsets {
    fn new(start: usize, size: u16, buffer_size: usize) -> Self {
        let entries = usize::from(size);
        let desc = start.next_multiple_of(ALIGNMENT);
        let avail = desc + DESC_SIZE * entries;
        let used = (avail + 6 + 2 * entries).next_multiple_of(ALIGNMENT);
        let buffers = (used + 6 + 8 * entries).next_multiple_of(ALIGNMENT);
        let end = buffers + buffer_size * entries;
        Self {
            desc,
            avail,
            used,
            buffers,
            end,
        }
    }
}

impl DriverQueue {
    /// The offset in the DMA memory at which a queue ends, in bytes. The queue begins at the offset
    /// `start`.
    pub fn end(start: usize, size: u16, buffer_size: usize) -> usize {
        Offsets::new(start, size, buffer_size).end
    }

    /// Makes an empty queue of `size` entries (a power of two) in `memory`, from byte `start` on.
    /// `iova` is the I/O virtual address of the memory. The device writes the buffers if
    /// `device_writes` is true, and otherwise reads the buffers.
    ///
    /// # Panics
    ///
    /// When the memory ends before [`DriverQueue::end`].
    pub fn new(
        memory: Arc<DmaMemory>,
        iova: u64,
        start: usize,
        size: u16,
        buffer_size: usize,
        device_writes: bool,
    ) -> Self {
        let offsets = Offsets::new(start, size, buffer_size);
        memory.copy_in(offsets.desc, &vec![0; offsets.buffers - offsets.desc]);
        let queue = Self {
            memory,
            iova,
            offsets,
            size,
            buffer_size,
            device_writes,
            next_avail: 0,
            next_used: 0,
            in_flight: vec![false; usize::from(size)],
        };
        // The rings have to be empty in memory before the device learns their addresses.
        fence(Ordering::SeqCst);
        queue
    }

    /// The addresses of the parts of the queue. The device uses these addresses for DMA.
    pub fn layout(&self) -> QueueLayout {
        QueueLayout {
            desc: self.iova + self.offsets.desc as u64,
            avail: self.iova + self.offsets.avail as u64,
            used: self.iova + self.offsets.used as u64,
        }
    }

    /// The number of buffers in the queue.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// The length of a buffer in bytes.
    pub fn buffer_size(&self) -> usize {
        self.buffer_size
    }

    /// The number of a buffer that the device does not use at present. `None` if the device uses
    /// all buffers.
    pub fn free_buffer(&self) -> Option<u16> {
        let free = self.in_flight.iter().position(|in_flight| !in_flight);
        free.map(|id| id as u16)
    }

    /// Copies a message into a buffer.
    ///
    /// # Panics
    ///
    /// When the message is longer than the buffer, or when the queue has no buffer `id`.
    pub fn fill(&self, id: u16, message: &[u8]) {
        assert!(message.len() <= self.buffer_size);
        self.memory.copy_in(self.buffer_offset(id), message);
    }

    /// Returns a copy of the bytes that the device wrote to a buffer.
    pub fn copy_out(&self, used: Used) -> Vec<u8> {
        self.memory.copy_out(self.buffer_offset(used.id), used.len)
    }

    /// Gives the device the first `len` bytes of a buffer.
    ///
    /// # Panics
    ///
    /// When `len` is more than the length of the buffer, when the device already has the buffer, or
    /// when the queue has no buffer `id`.
    pub fn post(&mut self, id: u16, len: usize) {
        assert!(len <= self.buffer_size);
        let in_flight = &mut self.in_flight[usize::from(id)];
        assert!(
            !std::mem::replace(in_flight, true),
            "the device already has the buffer"
        );
        let desc = self.offsets.desc + DESC_SIZE * usize::from(id);
        let address = self.iova + self.buffer_offset(id) as u64;
        let flags = if self.device_writes { WRITE } else { 0 };
        self.memory.write(desc, address);
        self.memory.write(desc + 8, len as u32);
        self.memory.write(desc + 12, flags);
        self.memory.write(desc + 14, 0u16);
        let slot = usize::from(self.next_avail % self.size);
        self.memory.write(self.offsets.avail + 4 + 2 * slot, id);
        self.next_avail = self.next_avail.wrapping_add(1);
        // The new entry of the available ring has to be in memory before the ring's index is
        // increased.
        fence(Ordering::SeqCst);
        self.memory.write(self.offsets.avail + 2, self.next_avail);
        // The ring's index has to be in memory before the device is notified.
        fence(Ordering::SeqCst);
    }

    /// Whether the used ring has a buffer that the driver has not yet taken.
    pub fn has_used(&self) -> bool {
        fence(Ordering::SeqCst);
        self.memory.read::<u16>(self.offsets.used + 2) != self.next_used
    }

    /// Takes the next buffer that the device has returned. `None` if all returned buffers have been
    /// taken.
    ///
    /// # Errors
    ///
    /// [`UsedError`]. The queue must not be used after an error.
    pub fn take_used(&mut self) -> Result<Option<Used>, UsedError> {
        fence(Ordering::SeqCst);
        let index: u16 = self.memory.read(self.offsets.used + 2);
        let count = index.wrapping_sub(self.next_used);
        if count == 0 {
            return Ok(None);
        }
        if count > self.size {
            return Err(UsedError::TooMany(count, self.size));
        }
        // The index of the used ring has to be read before the entries of the ring.
        fence(Ordering::SeqCst);
        let slot = usize::from(self.next_used % self.size);
        let entry = self.offsets.used + 4 + 8 * slot;
        let id: u32 = self.memory.read(entry);
        let len: u32 = self.memory.read(entry + 4);
        let used = self.check(id, len)?;
        self.next_used = self.next_used.wrapping_add(1);
        self.in_flight[usize::from(used.id)] = false;
        Ok(Some(used))
    }

    fn check(&self, id: u32, len: u32) -> Result<Used, UsedError> {
        let index = usize::try_from(id).ok();
        let in_flight = index.and_then(|index| self.in_flight.get(index));
        if in_flight != Some(&true) {
            return Err(UsedError::NotInFlight(id));
        }
        // The device does not write to buffers that the device only reads. For these buffers, some
        // devices report the number of bytes that they read, so the used length is ignored.
        let len = if self.device_writes { len } else { 0 };
        if len as usize > self.buffer_size {
            return Err(UsedError::TooLong(len, self.buffer_size));
        }
        Ok(Used {
            id: id as u16,
            len: len as usize,
        })
    }

    fn buffer_offset(&self, id: u16) -> usize {
        assert!(id < self.size);
        self.offsets.buffers + self.buffer_size * usize::from(id)
    }
}

#[cfg(test)]
mod tests;
