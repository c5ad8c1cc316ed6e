//! The vhost-user front-end of the virtio-driver crate, with buffers for I/O.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use memmap2::MmapMut;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use virtio_driver::{
    EventFd, QueueNotifier, VhostUser, VirtioBlkFeatureFlags, VirtioBlkQueue, VirtioBlkTransport,
    VirtioFeatureFlags,
};

use super::FrontEnd;

/// The number of descriptors in the queue, which is enough for all workloads. A request takes three
/// descriptors, and no workload has more than 128 requests in flight.
const QUEUE_SIZE: u16 = 512;

/// A connection to a disk with one queue.
pub struct VirtioDriver {
    queue: VirtioBlkQueue<'static, usize>,
    kick: Box<dyn QueueNotifier>,
    call: Arc<EventFd>,
    block: usize,
    /// The memory with the buffers of all slots. It is unmapped before the transport is dropped.
    /// The back-end can still access the buffers then, because it has its own mapping of their
    /// file.
    buffers: MmapMut,
    /// The size of the disk in bytes.
    capacity: u64,
    _transport: Box<VirtioBlkTransport>,
}

impl VirtioDriver {
    /// Connects to the back-end at `socket`, with `count` buffers of `block` bytes.
    pub fn connect(socket: &Path, block: usize, count: usize) -> Result<Self> {
        Self::with_rings(socket, VirtioFeatureFlags::empty(), block, count)
    }

    /// Connects like [`VirtioDriver::connect`], but with a packed virtqueue.
    pub fn packed(socket: &Path, block: usize, count: usize) -> Result<Self> {
        Self::with_rings(socket, VirtioFeatureFlags::RING_PACKED, block, count)
    }

    fn with_rings(
        socket: &Path,
        rings: VirtioFeatureFlags,
        block: usize,
        count: usize,
    ) -> Result<Self> {
        let features = VirtioFeatureFlags::VERSION_1 | VirtioFeatureFlags::RING_EVENT_IDX | rings;
        let path = socket.to_str().context("the socket's path is not UTF-8")?;
        // Without FLUSH, a back-end would have to make each write stable before it completes the
        // write.
        let disk = VirtioBlkFeatureFlags::FLUSH
            | VirtioBlkFeatureFlags::DISCARD
            | VirtioBlkFeatureFlags::WRITE_ZEROES;
        let transport = VhostUser::new(path, features.bits() | disk.bits())
            .with_context(|| format!("cannot connect to {path}"))?;
        let mut transport: Box<VirtioBlkTransport> = Box::new(transport);
        let agreed = VirtioFeatureFlags::from_bits_truncate(transport.get_features());
        ensure!(
            agreed.contains(rings),
            "the back-end does not support the requested kind of virtqueue"
        );
        let capacity = u64::from(transport.get_config()?.capacity) * 512;
        let mut queues = VirtioBlkQueue::setup_queues(transport.as_mut(), 1, QUEUE_SIZE)?;
        let buffers = shared_buffers(transport.as_mut(), block * count)?;
        Ok(Self {
            queue: queues.pop().context("the disk has no queue")?,
            kick: transport.get_submission_notifier(0),
            call: transport.get_completion_fd(0),
            block,
            buffers,
            capacity,
            _transport: transport,
        })
    }
}

impl VirtioDriver {
    /// The buffer of a slot that has no request in flight.
    pub fn buffer(&mut self, slot: usize) -> &mut [u8] {
        &mut self.buffers[slot * self.block..][..self.block]
    }

    /// Puts a flush request into the ring. The request makes all completed writes stable.
    pub fn flush(&mut self, slot: usize) -> Result<()> {
        Ok(self.queue.flush(slot)?)
    }

    /// Puts a request to discard a whole block into the ring.
    pub fn discard(&mut self, block: u64, slot: usize) -> Result<()> {
        let len = self.block as u64;
        Ok(self.queue.discard(block * len, len, slot)?)
    }

    /// Puts a request to fill a whole block with zeroes into the ring. `unmap` allows the back-end
    /// to free the block's space.
    pub fn write_zeroes(&mut self, block: u64, unmap: bool, slot: usize) -> Result<()> {
        let len = self.block as u64;
        Ok(self.queue.write_zeroes(block * len, len, unmap, slot)?)
    }

    /// Kicks the back-end, and waits until `pending` requests have ended. It is an error if a
    /// request failed.
    pub fn finish(&mut self, mut pending: usize) -> Result<()> {
        self.kick()?;
        let mut slots = Vec::new();
        loop {
            self.ended(&mut slots)?;
            pending -= slots.drain(..).len();
            if pending == 0 {
                return Ok(());
            }
            self.wait()?;
        }
    }
}

impl FrontEnd for VirtioDriver {
    fn buffer(&mut self, slot: usize) -> Option<&mut [u8]> {
        self.buffers
            .get_mut(slot * self.block..)?
            .get_mut(..self.block)
    }

    fn blocks(&self) -> u64 {
        self.capacity / self.block as u64
    }

    fn submit(&mut self, write: bool, block: u64, slot: usize) -> Result<()> {
        let offset = block * self.block as u64;
        let buffer = &mut self.buffers[slot * self.block..][..self.block];
        match write {
            true => self.queue.write(offset, buffer, slot)?,
            false => self.queue.read(offset, buffer, slot)?,
        }
        Ok(())
    }

    fn kick(&mut self) -> Result<()> {
        if self.queue.avail_notif_needed() {
            self.kick.notify()?;
        }
        Ok(())
    }

    fn ended(&mut self, slots: &mut Vec<usize>) -> Result<()> {
        for completion in self.queue.completions() {
            ensure!(completion.ret == 0, "a request failed: {}", completion.ret);
            slots.push(completion.context);
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<()> {
        self.queue.set_used_notif_enabled(true);
        if !self.queue.completions().has_next() {
            // A back-end may have made the eventfd non-blocking. Then `read` would not wait, so
            // `poll` waits.
            poll(&mut [PollFd::new(&self.call, PollFlags::IN)], None)?;
            self.call.read()?;
        }
        self.queue.set_used_notif_enabled(false);
        Ok(())
    }

    fn alarm(&self) -> Result<OwnedFd> {
        Ok(self.call.as_fd().try_clone_to_owned()?)
    }
}

/// Allocates memory for buffers, and shares the memory with the back-end.
fn shared_buffers(transport: &mut VirtioBlkTransport, len: usize) -> Result<MmapMut> {
    let file = File::from(memfd_create("buffers", MemfdFlags::CLOEXEC)?);
    file.set_len(len as u64)?;
    // SAFETY: the file is our own and is never truncated, so that each page of the map stays valid.
    // The back-end is trusted here. It writes to a buffer only while a request uses the buffer, and
    // `buffer` is never called for a buffer that a request uses.
    let buffers = unsafe { MmapMut::map_mut(&file) }?;
    transport.map_mem_region(buffers.as_ptr() as usize, len, file.as_raw_fd(), 0)?;
    Ok(buffers)
}
