//! A small vhost-user front-end whose rings and buffers are all in one named file.
//!
//! A VVU device has to know its front-end's memory beforehand. The front-end of the virtio-driver
//! crate allocates its memory as it goes.

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{Ordering, fence};

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{AtomicAccess, Bytes, FileOffset, MmapRegion, VolatileMemory};
use vmm_sys_util::eventfd::EventFd;

use super::FrontEnd;

/// Descriptors in the queue.
const QUEUE_SIZE: u16 = 512;

/// Each slot has this many descriptors, always the same ones.
const DESCRIPTORS: usize = 3;

// Where things are in the file.
const AVAIL: usize = 16 * QUEUE_SIZE as usize;
const USED: usize = AVAIL + 0x1000;
const REQUESTS: usize = USED + 0x2000;
const BUFFERS: usize = REQUESTS + 0x8000;

/// Length of a request's header, which its status follows.
const HEADER: usize = 16;
const REQUEST: usize = 32;

/// `VIRTIO_F_VERSION_1`, `VIRTIO_RING_F_EVENT_IDX`, `VIRTIO_BLK_F_FLUSH` (without which each write
/// would have to be stable) and `VHOST_USER_F_PROTOCOL_FEATURES`.
const FEATURES: u64 = 1 << 32 | 1 << 29 | 1 << 9 | 1 << 30;

const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// A connected disk.
pub struct OneFile {
    memory: MmapRegion,
    kick: EventFd,
    call: EventFd,
    block: usize,
    capacity: u64,
    /// How many requests were made available, modulo 2^16.
    avail: u16,
    /// How many of them the back-end was told about, modulo 2^16.
    told: u16,
    /// How many came back, modulo 2^16.
    used: u16,
    _connection: Frontend,
}

impl OneFile {
    /// Connects to the back-end at `socket`, with `count` buffers of `block` bytes.
    pub fn connect(socket: &Path, file: &Path, block: usize, count: usize) -> Result<Self> {
        ensure!(
            count * DESCRIPTORS <= usize::from(QUEUE_SIZE),
            "too many slots"
        );
        let memory = map(file)?;
        ensure!(
            BUFFERS + block * count <= memory.size(),
            "the memory is too small"
        );
        let zeroes = vec![0; BUFFERS];
        memory.as_volatile_slice().write_slice(&zeroes, 0)?;
        let (mut connection, capacity) = negotiate(socket)?;
        let (kick, call) = (EventFd::new(0)?, EventFd::new(0)?);
        start_queue(&connection, &memory, &kick, &call)?;
        connection.set_vring_enable(0, true)?;
        Ok(Self {
            memory,
            kick,
            call,
            block,
            capacity,
            avail: 0,
            told: 0,
            used: 0,
            _connection: connection,
        })
    }

    fn store<T: AtomicAccess>(&self, at: usize, value: T, order: Ordering) -> Result<()> {
        Ok(self.memory.as_volatile_slice().store(value, at, order)?)
    }

    fn load<T: AtomicAccess>(&self, at: usize, order: Ordering) -> Result<T> {
        Ok(self.memory.as_volatile_slice().load(at, order)?)
    }

    fn describe(&self, index: usize, addr: usize, len: usize, flags: u16) -> Result<()> {
        let at = 16 * index;
        self.store(at, addr as u64, Ordering::Relaxed)?;
        self.store(at + 8, len as u32, Ordering::Relaxed)?;
        self.store(at + 12, flags, Ordering::Relaxed)?;
        self.store(at + 14, index as u16 + 1, Ordering::Relaxed)
    }

    fn has_ended(&self) -> Result<bool> {
        Ok(self.load::<u16>(USED + 2, Ordering::Acquire)? != self.used)
    }
}

impl FrontEnd for OneFile {
    fn blocks(&self) -> u64 {
        self.capacity / self.block as u64
    }

    fn submit(&mut self, write: bool, block: u64, slot: usize) -> Result<()> {
        let (head, request) = (DESCRIPTORS * slot, REQUESTS + REQUEST * slot);
        let buffer = BUFFERS + self.block * slot;
        let direction = if write { 0 } else { WRITE };
        self.describe(head, request, HEADER, NEXT)?;
        self.describe(head + 1, buffer, self.block, NEXT | direction)?;
        self.describe(head + 2, request + HEADER, 1, WRITE)?;
        self.store(request, u32::from(write), Ordering::Relaxed)?;
        let sector = block * self.block as u64 / 512;
        self.store(request + 8, sector, Ordering::Relaxed)?;
        self.store(request + HEADER, 0xffu8, Ordering::Relaxed)?;
        let place = usize::from(self.avail % QUEUE_SIZE);
        self.store(AVAIL + 4 + 2 * place, head as u16, Ordering::Relaxed)?;
        self.avail = self.avail.wrapping_add(1);
        self.store(AVAIL + 2, self.avail, Ordering::Release)
    }

    fn kick(&mut self) -> Result<()> {
        // The back-end writes its event index before it looks for requests the last time.
        fence(Ordering::SeqCst);
        let at = USED + 4 + 8 * usize::from(QUEUE_SIZE);
        let event: u16 = self.load(at, Ordering::Relaxed)?;
        let new = self.avail.wrapping_sub(self.told);
        self.told = self.avail;
        if self.avail.wrapping_sub(event).wrapping_sub(1) < new {
            self.kick.write(1)?;
        }
        Ok(())
    }

    fn ended(&mut self, slots: &mut Vec<usize>) -> Result<()> {
        while self.has_ended()? {
            let at = USED + 4 + 8 * usize::from(self.used % QUEUE_SIZE);
            let slot = self.load::<u32>(at, Ordering::Relaxed)? as usize / DESCRIPTORS;
            let status: u8 = self.load(REQUESTS + REQUEST * slot + HEADER, Ordering::Relaxed)?;
            ensure!(status == 0, "a request failed: status {status}");
            slots.push(slot);
            self.used = self.used.wrapping_add(1);
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<()> {
        let event = AVAIL + 4 + 2 * usize::from(QUEUE_SIZE);
        self.store(event, self.used, Ordering::Relaxed)?;
        // The back-end writes its index before it looks whether a call is wanted.
        fence(Ordering::SeqCst);
        if self.has_ended()? {
            return Ok(());
        }
        // A back-end may have made the eventfd non-blocking, so reading alone does not wait.
        poll(&mut [PollFd::new(&borrow(&self.call), PollFlags::IN)], None)?;
        self.call.read()?;
        Ok(())
    }

    fn alarm(&self) -> Result<OwnedFd> {
        Ok(borrow(&self.call).try_clone_to_owned()?)
    }
}

fn borrow(eventfd: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: it is open as long as the eventfd lives, which is borrowed.
    unsafe { BorrowedFd::borrow_raw(eventfd.as_raw_fd()) }
}

fn map(path: &Path) -> Result<MmapRegion> {
    let context = || format!("cannot map {}", path.display());
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.with_context(context)?;
    let len = file.metadata()?.len();
    MmapRegion::from_file(FileOffset::new(file, 0), usize::try_from(len)?).with_context(context)
}

/// Connects and agrees on features; returns the disk's size in bytes, too.
fn negotiate(socket: &Path) -> Result<(Frontend, u64)> {
    let mut connection = Frontend::connect(socket, 1)
        .with_context(|| format!("cannot connect to {}", socket.display()))?;
    connection.set_owner()?;
    let features = connection.get_features()?;
    connection.set_features(features & FEATURES)?;
    let wanted = VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::REPLY_ACK;
    let offered = connection.get_protocol_features()?;
    connection.set_protocol_features(offered & wanted)?;
    connection.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    let (_, capacity) = connection.get_config(0, 8, VhostUserConfigFlags::empty(), &[0; 8])?;
    let capacity = capacity.first_chunk().context("the capacity is short")?;
    Ok((connection, u64::from_le_bytes(*capacity) * 512))
}

/// Shares the memory, whose addresses are offsets into it, and sets the queue up.
fn start_queue(
    connection: &Frontend,
    memory: &MmapRegion,
    kick: &EventFd,
    call: &EventFd,
) -> Result<()> {
    let file = memory.file_offset().context("the memory has no file")?;
    connection.set_mem_table(&[VhostUserMemoryRegionInfo {
        guest_phys_addr: 0,
        memory_size: memory.size() as u64,
        userspace_addr: 0,
        mmap_offset: 0,
        mmap_handle: file.file().as_raw_fd(),
    }])?;
    connection.set_vring_num(0, QUEUE_SIZE)?;
    connection.set_vring_base(0, 0)?;
    let addresses = VringConfigData {
        queue_max_size: QUEUE_SIZE,
        queue_size: QUEUE_SIZE,
        flags: 0,
        desc_table_addr: 0,
        used_ring_addr: USED as u64,
        avail_ring_addr: AVAIL as u64,
        log_addr: None,
    };
    connection.set_vring_addr(0, &addresses)?;
    connection.set_vring_kick(0, kick)?;
    connection.set_vring_call(0, call)?;
    Ok(())
}
