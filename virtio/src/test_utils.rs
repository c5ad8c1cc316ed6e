//! The driver's memory and the driver's side of rings, for tests.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use vm_memory::{Bytes, GuestAddress, Permissions};

use crate::memory::Mapping;
use crate::{GuestMemory, Region, Translation, VringLayout};

mod any;
mod null;
mod packed;
mod restless;

pub use any::AnyDriverRing;
pub use null::NullDevice;
pub use packed::{AVAIL, EVENT_DESC, EVENT_DISABLE, EVENT_ENABLE, PackedDriverRing, USED};
pub use restless::RestlessKick;

/// Descriptor flag: the chain continues with the descriptor at index `next`.
pub const NEXT: u16 = 1;
/// Descriptor flag: the device may write this buffer.
pub const WRITE: u16 = 2;
/// Descriptor flag: the buffer is an indirect table of descriptors.
pub const INDIRECT: u16 = 4;

/// Calls `check` with each input in the folder of a fuzz target's stored inputs.
///
/// # Panics
///
/// When the folder has no inputs, or cannot be read.
pub fn replay(corpus: &str, check: fn(&[u8])) {
    let mut inputs = 0;
    for entry in std::fs::read_dir(corpus).expect("a folder of inputs") {
        let path = entry.expect("an input").path();
        check(&std::fs::read(path).expect("an input"));
        inputs += 1;
    }
    assert!(inputs > 0, "no inputs in {corpus}");
}

/// A memfd of `len` bytes.
///
/// # Panics
///
/// When the system is out of memory.
pub fn anonymous_file(len: u64) -> Arc<File> {
    use std::os::fd::FromRawFd;
    // SAFETY: the name is a C string that lives as long as the program, and the kernel copies it.
    let fd = unsafe { libc::memfd_create(c"test-memory".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0, "memfd_create: {}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made the file descriptor, so no other object owns it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(len).expect("memfd takes any length");
    Arc::new(file)
}

/// The memory of a driver: one region of `len` bytes from address 0 on.
///
/// # Panics
///
/// When the system is out of memory.
pub fn memory(len: u64) -> Arc<GuestMemory> {
    let region = Region::map(anonymous_file(len), 0, GuestAddress(0), len, true);
    Arc::new(GuestMemory::from_regions(vec![region.expect("memory")]).expect("one region"))
}

/// The given memory behind an IOMMU, and the IOMMU's translation. The IOMMU maps the first `len`
/// bytes page by page, and swaps each two adjacent pages: page 0 to page 1 and page 1 to page 0,
/// page 2 to page 3 and page 3 to page 2, and so on. So no mapping can be merged with the next
/// mapping.
///
/// # Panics
///
/// When `len` is not a multiple of 8 KiB, or is more than
/// [`MAX_MAPPINGS`](crate::memory::MAX_MAPPINGS) pages.
pub fn swapped_pages(memory: &GuestMemory, len: u64) -> (Arc<GuestMemory>, Arc<Translation>) {
    const PAGE: u64 = 4096;
    assert!(len.is_multiple_of(2 * PAGE));
    let translation = Arc::new(Translation::default());
    for start in (0..len).step_by(PAGE as usize) {
        let mapping = Mapping {
            size: PAGE,
            target: Some(GuestAddress(start ^ PAGE)),
            access: Permissions::ReadWrite,
        };
        translation.map(start, mapping).expect("a free range");
    }
    (
        Arc::new(memory.translated(translation.clone())),
        translation,
    )
}

/// The driver's side of a split virtqueue. Tests can also break the rules of virtio with it.
#[derive(Debug)]
pub struct DriverRing {
    memory: Arc<GuestMemory>,
    layout: VringLayout,
    next_desc: u16,
    avail: u16,
    used: u16,
    /// The available index at the last call of [`DriverRing::wants_kick`].
    kicked: u16,
}

/// A descriptor as the driver writes it: address, length, flags, next.
pub type RawDescriptor = (u64, u32, u16, u16);

impl DriverRing {
    /// A ring of `size` descriptors that begins at the address `base`. `base` has to be aligned to
    /// 16 bytes. The ring takes at most `26 * size + 16` bytes.
    pub fn new(memory: Arc<GuestMemory>, base: u64, size: u16) -> Self {
        let avail = base + 16 * u64::from(size);
        let used = (avail + 6 + 2 * u64::from(size)).next_multiple_of(4);
        let layout = VringLayout {
            packed: false,
            size,
            desc: GuestAddress(base),
            avail: GuestAddress(avail),
            used: GuestAddress(used),
        };
        Self {
            memory,
            layout,
            next_desc: 0,
            avail: 0,
            used: 0,
            kicked: 0,
        }
    }

    /// Sets the available index and the used index to `index`. Call this method before the first
    /// chain is added.
    pub fn start_at(&mut self, index: u16) {
        self.set_avail_index(index);
        self.used = index;
        self.put(index.to_le(), self.layout.used.0 + 2);
    }

    /// The layout of the ring.
    pub fn layout(&self) -> VringLayout {
        self.layout
    }

    /// The available index of the next chain.
    pub fn position(&self) -> u16 {
        self.avail
    }

    /// Writes entry `index` of the descriptor table at the address `table`.
    ///
    /// # Panics
    ///
    /// When the table is outside memory.
    pub fn write_descriptor(&self, table: GuestAddress, index: u16, descriptor: RawDescriptor) {
        let (addr, len, flags, next) = descriptor;
        let at = table.0 + 16 * u64::from(index);
        self.put(addr.to_le(), at);
        self.put(len.to_le(), at + 8);
        self.put(flags.to_le(), at + 12);
        self.put(next.to_le(), at + 14);
    }

    /// Adds a chain of (address, length, writable?) buffers, and returns the chain's head.
    ///
    /// # Panics
    ///
    /// When `buffers` is empty.
    pub fn add(&mut self, buffers: &[(u64, u32, bool)]) -> u16 {
        assert!(!buffers.is_empty());
        let size = self.layout.size;
        let head = self.next_desc;
        for (position, &(addr, len, writable)) in buffers.iter().enumerate() {
            let index = self.next_desc;
            self.next_desc = (self.next_desc + 1) % size;
            let last = position + 1 == buffers.len();
            let flags = if writable { WRITE } else { 0 } | if last { 0 } else { NEXT };
            self.write_descriptor(self.layout.desc, index, (addr, len, flags, self.next_desc));
        }
        self.publish(head);
        head
    }

    /// Puts `head`, which may be invalid, into the available ring, and increments the available
    /// index.
    pub fn publish(&mut self, head: u16) {
        let slot = u64::from(self.avail % self.layout.size);
        self.put(head.to_le(), self.layout.avail.0 + 4 + 2 * slot);
        self.set_avail_index(self.avail.wrapping_add(1));
    }

    /// Sets the available index to any value.
    pub fn set_avail_index(&mut self, index: u16) {
        self.avail = index;
        fence(Ordering::SeqCst);
        self.put(index.to_le(), self.layout.avail.0 + 2);
    }

    /// Sets the available ring's flags.
    pub fn set_avail_flags(&self, flags: u16) {
        self.put(flags.to_le(), self.layout.avail.0);
    }

    /// Asks (with EVENT_IDX) for a call when the used index passes `index`.
    pub fn set_used_event(&self, index: u16) {
        self.put(
            index.to_le(),
            self.layout.avail.0 + 4 + 2 * u64::from(self.layout.size),
        );
    }

    /// The flags of the used ring.
    pub fn used_flags(&self) -> u16 {
        u16::from_le(self.get(self.layout.used.0))
    }

    /// The available index at which the device wants a kick. Valid only with EVENT_IDX.
    pub fn avail_event(&self) -> u16 {
        u16::from_le(self.get(self.layout.used.0 + 4 + 8 * u64::from(self.layout.size)))
    }

    /// Asks (with EVENT_IDX) for a call at the next used buffer.
    pub fn ask_for_call(&self) {
        self.set_used_event(self.used);
        fence(Ordering::SeqCst);
    }

    /// Whether the device wants a kick for the chains that were added since the previous call of
    /// this method.
    pub fn wants_kick(&mut self, event_idx: bool) -> bool {
        let before = std::mem::replace(&mut self.kicked, self.avail);
        fence(Ordering::SeqCst);
        let behind = self.avail.wrapping_sub(self.avail_event());
        match event_idx {
            true => behind.wrapping_sub(1) < self.avail.wrapping_sub(before),
            false => self.used_flags() & 1 == 0,
        }
    }

    /// The next entry of the used ring: the chain's head, and the number of bytes written to the
    /// chain. `None` if the device has used no further chain.
    pub fn pop_used(&mut self) -> Option<(u32, u32)> {
        let index = u16::from_le(self.get(self.layout.used.0 + 2));
        if index == self.used {
            return None;
        }
        fence(Ordering::SeqCst);
        let at = self.layout.used.0 + 4 + 8 * u64::from(self.used % self.layout.size);
        self.used = self.used.wrapping_add(1);
        Some((u32::from_le(self.get(at)), u32::from_le(self.get(at + 4))))
    }

    fn put<T: vm_memory::ByteValued>(&self, value: T, addr: u64) {
        self.memory
            .write_obj(value, GuestAddress(addr))
            .expect("ring inside memory");
    }

    fn get<T: vm_memory::ByteValued>(&self, addr: u64) -> T {
        self.memory
            .read_obj(GuestAddress(addr))
            .expect("ring inside memory")
    }
}
