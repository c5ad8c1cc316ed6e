//! The client's memory that the device may access.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::Errno;
use tracing::{debug, warn};
use vfio_user::DmaFlags;
use vfio_user::server::{DmaMap, DmaUnmap};
use vhost_user::WithCauses;
use virtio::memory::{Access, MapError, Mapping, MemoryFiles, MemoryLost, RegionError};
use virtio::{GuestMemory, Region, Translation};
use vm_memory::{GuestAddress, GuestMemoryRegion, Permissions};

/// The minimum gap in bytes between the addresses of two mapped files. Without a gap, a range at
/// the end of one file and a range at the start of the next file could be merged.
const GAP: u64 = 0x1000;

/// The ranges of addresses that the client lets the device access, and the memory of these ranges.
///
/// With a virtual IOMMU, the client adds and removes thousands of ranges of one page each, but the
/// ranges are parts of only a few files. Therefore each regular file is mapped into this process as
/// a whole. When the client adds or removes a range, only a table changes. Running queues see the
/// changes of the table.
#[derive(Debug, Default)]
pub struct DmaTable {
    translation: Arc<Translation>,
    /// The mapped files, sorted by their addresses.
    files: Vec<MappedFile>,
    memory: Option<Arc<GuestMemory>>,
    /// The kinds of files that may be the client's memory.
    kinds: MemoryFiles,
}

/// A file, or a part of a file, that is mapped into this process as `region`. The table maps ranges
/// to addresses in `region`.
#[derive(Debug)]
struct MappedFile {
    device: u64,
    inode: u64,
    /// The accesses that the mapping permits. If a file is mapped for reading only, a range that
    /// permits writing needs a second mapping of the file.
    access: Access,
    /// The offset in the file at which the region begins.
    offset: u64,
    region: Arc<Region>,
}

impl DmaTable {
    /// An empty table, for files of these kinds.
    pub fn new(kinds: MemoryFiles) -> Self {
        Self {
            kinds,
            ..Self::default()
        }
    }

    /// Adds a range of addresses that the device may access.
    ///
    /// # Errors
    ///
    /// EEXIST when the range overlaps another range, ENOSPC when there are too many ranges, EACCES
    /// when the device may write the range but the file is not open for reading and writing, EINVAL
    /// when the range extends past the end of the file, or the error of the operating system.
    pub fn map(&mut self, request: DmaMap) -> Result<(), Errno> {
        let (size, access) = (request.size, permissions(request.flags));
        let (start, offset) = (request.address, request.offset);
        let target = match request.fd {
            None => None,
            Some(fd) => Some(self.place(fd, offset, size, access)?),
        };
        let mapping = Mapping {
            size,
            target,
            access,
        };
        let added = self.translation.map(start, mapping);
        if added.is_err() {
            self.forget_unused();
        }
        added.map_err(|error| match error {
            MapError::Overlap => Errno::EXIST,
            MapError::Full => Errno::NOSPC,
            _ => Errno::INVAL,
        })
    }

    /// Removes the parts of ranges that lie in `first..=last`.
    pub fn unmap(&mut self, first: u64, last: u64) {
        self.translation.unmap(first, last);
        self.forget_unused();
    }

    /// All memory that the device can access. `None` means that the client shares no memory.
    ///
    /// The returned object follows later changes of the ranges, as long as no file is added or
    /// removed. After a file is added or removed, this method returns a new object, and users of
    /// the old object have to release it.
    pub fn memory(&mut self) -> Option<Arc<GuestMemory>> {
        if self.memory.is_none() {
            let regions = self.files.iter().map(|known| known.region.clone());
            let memory = GuestMemory::from_arc_regions(regions.collect()).ok()?;
            self.memory = Some(Arc::new(memory.translated(self.translation.clone())));
        }
        self.memory.clone()
    }

    /// Checks that no page of the client's memory was missing when this process accessed the page.
    ///
    /// # Errors
    ///
    /// When a page was missing, for instance because the client has truncated the file.
    pub fn check(&self) -> Result<(), MemoryLost> {
        let memory = self.memory.as_ref();
        memory.map_or(Ok(()), |memory| memory.check())
    }

    /// The same memory as [`DmaTable::memory`], as a separate object for one queue. The object
    /// tracks the parts of the memory that the queue uses.
    pub fn memory_for_queue(&mut self) -> Option<Arc<GuestMemory>> {
        let memory = self.memory()?;
        Some(Arc::new(memory.translated(self.translation.clone())))
    }

    /// Maps a part of a file, unless the part is already mapped. Returns the address of the part.
    fn place(
        &mut self,
        fd: OwnedFd,
        offset: u64,
        size: u64,
        access: Permissions,
    ) -> Result<GuestAddress, Errno> {
        // This check comes before any other use of the descriptor. The file may be in a file system
        // that never answers (FUSE), and another use would then block.
        self.kinds.check(&fd).map_err(|refused| {
            warn!("client's memory is refused: {refused}");
            Errno::ACCESS
        })?;
        let file = File::from(fd);
        let access = match access.has_write() {
            false => Access::Read,
            true => Access::ReadWrite,
        };
        // If the client's descriptor is open only for reading, the device must not write to the
        // file.
        let open_for = fcntl_getfl(&file)? & OFlags::RWMODE;
        if access == Access::ReadWrite && open_for != OFlags::RDWR {
            return Err(Errno::ACCESS);
        }
        let metadata = file.metadata().map_err(|error| errno(&error))?;
        let key = (metadata.dev(), metadata.ino(), access);
        let known = self.files.iter();
        let mut same = known.filter(|known| (known.device, known.inode, known.access) == key);
        if let Some(known) = same.find(|known| known.covers(offset, size)) {
            return Ok(known.address(offset));
        }
        // A regular file is mapped as a whole. Other files have no known length, so only the
        // requested part is mapped.
        let window = match metadata.is_file() {
            true => (0, metadata.len()),
            false => (offset, size),
        };
        let (index, place) = self.free_place(window.1).ok_or(Errno::NOMEM)?;
        let known = MappedFile::map(file, &metadata, window, access, place)?;
        if !known.covers(offset, size) {
            debug!("the client's memory range extends past the end of its file");
            return Err(Errno::INVAL);
        }
        let address = known.address(offset);
        self.files.insert(index, known);
        self.memory = None;
        Ok(address)
    }

    /// Finds the lowest free addresses for a file of `size` bytes. Returns the index that the file
    /// will have among all files, and the file's first address. `None` means that there are no such
    /// addresses.
    fn free_place(&self, size: u64) -> Option<(usize, u64)> {
        let mut place = 0u64;
        for (index, known) in self.files.iter().enumerate() {
            let end = place.checked_add(size)?.checked_add(GAP)?;
            let start = known.region.start_addr().0;
            if end <= start {
                return Some((index, place));
            }
            let next = start + known.region.len();
            place = next.checked_next_multiple_of(GAP)?.checked_add(GAP)?;
        }
        place.checked_add(size)?;
        Some((self.files.len(), place))
    }

    /// Unmaps the files that have no ranges any more.
    fn forget_unused(&mut self) {
        let before = self.files.len();
        let translation = &self.translation;
        self.files.retain(|known| {
            let first = known.region.start_addr().0;
            let places = first..first + known.region.len();
            translation.any(|range| range.target.is_some_and(|at| places.contains(&at.0)))
        });
        if self.files.len() != before {
            self.memory = None;
        }
    }
}

impl MappedFile {
    /// Maps `size` bytes of a file, from `offset` on. `place` becomes the address of the region.
    fn map(
        file: File,
        metadata: &Metadata,
        (offset, size): (u64, u64),
        access: Access,
        place: u64,
    ) -> Result<Self, Errno> {
        let file = Arc::new(file);
        let region = Region::map_for(access, file, offset, GuestAddress(place), size, true);
        let region = region.map_err(|error| {
            debug!(
                "the client's memory cannot be mapped: {}",
                WithCauses(&error)
            );
            refusal(&error)
        })?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            access,
            offset,
            region: Arc::new(region),
        })
    }

    fn covers(&self, offset: u64, size: u64) -> bool {
        let start = offset.checked_sub(self.offset);
        let end = start.and_then(|start| start.checked_add(size));
        end.is_some_and(|end| end <= self.region.len())
    }

    /// The address at which the byte at `offset` of the file is mapped. `region` has to cover the
    /// offset.
    fn address(&self, offset: u64) -> GuestAddress {
        GuestAddress(self.region.start_addr().0 + (offset - self.offset))
    }
}

/// The first and last address to unmap. `None` means that the range is empty.
pub fn addresses(request: DmaUnmap) -> Option<(u64, u64)> {
    match request {
        DmaUnmap::All => Some((0, u64::MAX)),
        DmaUnmap::Range { address, size } => {
            let length = size.checked_sub(1)?;
            Some((address, address.saturating_add(length)))
        }
    }
}

fn permissions(flags: DmaFlags) -> Permissions {
    match (
        flags.contains(DmaFlags::READ),
        flags.contains(DmaFlags::WRITE),
    ) {
        (false, false) => Permissions::No,
        (true, false) => Permissions::Read,
        (false, true) => Permissions::Write,
        (true, true) => Permissions::ReadWrite,
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

fn refusal(error: &RegionError) -> Errno {
    match error {
        RegionError::Stat(error) => errno(error),
        RegionError::Map(_) => Errno::NOMEM,
        _ => Errno::INVAL,
    }
}

#[cfg(test)]
mod tests;
