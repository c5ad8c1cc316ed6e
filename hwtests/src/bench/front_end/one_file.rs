//! A small vhost-user front-end whose rings and buffers are all in one named file.
//!
//! A VVU device has to know the memory of its front-end before the front-end connects. The
//! front-end of the virtio-driver crate cannot be used with a VVU device, because it allocates
//! memory while it runs.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ipc::{Interest, SharedEventFd, poll};
use vhost_user::{
    F_PROTOCOL_FEATURES, FrontEnd as Connection, MemoryRegion, MemoryTable, ProtocolFeatures,
    Request, VringAddr, VringSetup,
};
use vm_memory::{AtomicAccess, Bytes, FileOffset, MmapRegion, VolatileMemory};

use super::FrontEnd;

/// The number of descriptors in the queue.
const QUEUE_SIZE: u16 = 512;

/// The number of descriptors of each slot. A slot can have one request in flight, and always uses
/// the same descriptors.
const DESCRIPTORS: usize = 3;

// The offsets of the rings, headers and buffers in the file, in bytes.
const AVAIL: usize = 16 * QUEUE_SIZE as usize;
const USED: usize = AVAIL + 0x1000;
const REQUESTS: usize = USED + 0x2000;
const BUFFERS: usize = REQUESTS + 0x8000;

/// The length of a request's header in bytes. The request's status follows the header.
const HEADER: usize = 16;
const REQUEST: usize = 32;

/// The feature bits `VIRTIO_F_VERSION_1`, `VIRTIO_RING_F_EVENT_IDX`, `VIRTIO_BLK_F_FLUSH` and
/// `VHOST_USER_F_PROTOCOL_FEATURES`. Without `VIRTIO_BLK_F_FLUSH`, the back-end would have to make
/// each write stable before it completes the write.
const FEATURES: u64 = 1 << 32 | 1 << 29 | 1 << 9 | F_PROTOCOL_FEATURES;

/// The time limit for each answer of the back-end.
const PATIENCE: Duration = Duration::from_secs(60);

const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// A connection to a disk.
pub struct OneFile {
    memory: MmapRegion,
    kick: SharedEventFd,
    call: SharedEventFd,
    block: usize,
    capacity: u64,
    /// The number of requests that the front-end has made available, modulo 2^16.
    avail: u16,
    /// The value of `avail` at the last call of `kick`.
    told: u16,
    /// The number of requests that the back-end has returned, modulo 2^16.
    used: u16,
    _connection: Connection,
}

impl OneFile {
    /// Connects to the back-end at `socket`, with `count` buffers of `block` bytes. The rings and
    /// buffers are in `file`.
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
        let (kick, call) = (SharedEventFd::new()?, SharedEventFd::new()?);
        start_queue(&mut connection, &memory, &kick, &call)?;
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
        // Without the fence, the event index could be loaded before the available index is stored.
        // Then the back-end could miss the new requests and get no kick.
        fence(Ordering::SeqCst);
        let at = USED + 4 + 8 * usize::from(QUEUE_SIZE);
        let event: u16 = self.load(at, Ordering::Relaxed)?;
        let new = self.avail.wrapping_sub(self.told);
        self.told = self.avail;
        if self.avail.wrapping_sub(event).wrapping_sub(1) < new {
            self.kick.signal()?;
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
        // Without the fence, the used index could be loaded before the event index is stored. Then
        // the front-end could miss a completed request and get no call.
        fence(Ordering::SeqCst);
        if self.has_ended()? {
            return Ok(());
        }
        let [called] = poll([Interest::readable(&self.call)], Some(PATIENCE))?;
        ensure!(called, "no request has ended for {PATIENCE:?}");
        self.call.take()?;
        Ok(())
    }

    fn alarm(&self) -> Result<OwnedFd> {
        Ok(self.call.try_clone()?)
    }
}

fn map(path: &Path) -> Result<MmapRegion> {
    let context = || format!("cannot map {}", path.display());
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.with_context(context)?;
    let len = file.metadata()?.len();
    MmapRegion::from_file(FileOffset::new(file, 0), usize::try_from(len)?).with_context(context)
}

/// Connects to the back-end and agrees with it on features. Returns the connection and the disk's
/// size in bytes.
fn negotiate(socket: &Path) -> Result<(Connection, u64)> {
    let mut connection = Connection::connect(socket, PATIENCE)
        .with_context(|| format!("cannot connect to {}", socket.display()))?;
    let wanted = ProtocolFeatures::CONFIG | ProtocolFeatures::REPLY_ACK;
    connection.negotiate(FEATURES, wanted)?;
    let capacity = connection.get_config(0, 8)?;
    let capacity = capacity.first_chunk().context("the capacity is short")?;
    Ok((connection, u64::from_le_bytes(*capacity) * 512))
}

/// Shares the memory with the back-end, and starts the queue. Addresses in the queue are offsets
/// into the file that contains the memory.
fn start_queue(
    connection: &mut Connection,
    memory: &MmapRegion,
    kick: &SharedEventFd,
    call: &SharedEventFd,
) -> Result<()> {
    let file = memory.file_offset().context("the memory has no file")?;
    let region = MemoryRegion {
        guest_addr: 0,
        size: memory.size() as u64,
        user_addr: 0,
        file_offset: 0,
        memory: file.file().as_fd(),
    };
    connection.request(Request::SetMemTable(MemoryTable::new(vec![region])?))?;
    connection.start_vring(&VringSetup {
        size: QUEUE_SIZE.into(),
        base: 0,
        addr: VringAddr {
            used: USED as u64,
            avail: AVAIL as u64,
            ..VringAddr::default()
        },
        kick: Some(kick.as_fd()),
        call: Some(call.as_fd()),
    })?;
    Ok(())
}
