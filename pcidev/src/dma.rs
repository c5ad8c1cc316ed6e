//! The client's memory, as the device may access it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Weak};

use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::Errno;
use tracing::debug;
use vfio_user::server::{DmaMap, DmaUnmap};
use virtio::{GuestMemory, Region};
use vm_memory::GuestAddress;

/// The most ranges that are remembered. Neighbours in both address and file count as one, and the
/// kernel allows a process 65530 mappings.
pub const MAX_RANGES: usize = 32 * 1024;

/// Which ranges of addresses the client lets the device access, and what memory is there.
///
/// Behind an IOMMU of a virtual machine, ranges come and go by the thousand, page by page. They are
/// mapped into this process only when the device asks for its memory.
#[derive(Debug, Default)]
pub struct DmaTable {
    ranges: BTreeMap<u64, Range>,
    files: Vec<Known>,
    memory: Option<Arc<GuestMemory>>,
}

/// A range of addresses, never empty.
#[derive(Clone, Debug)]
struct Range {
    size: u64,
    /// `None`: the client did not say where its memory is.
    source: Option<Source>,
    /// The range as it is mapped, once it is.
    region: Option<Arc<Region>>,
}

/// Memory as a part of a file.
#[derive(Clone, Debug)]
struct Source {
    file: Arc<File>,
    offset: u64,
}

/// A file, so that a thousand descriptors of it take one here.
#[derive(Debug)]
struct Known {
    device: u64,
    inode: u64,
    /// One that is open for reading only does not do for another that is not.
    access: OFlags,
    file: Weak<File>,
}

impl DmaTable {
    /// Adds a range.
    ///
    /// # Errors
    ///
    /// EEXIST when part of it is there already, ENOSPC when there are [`MAX_RANGES`], or what the
    /// operating system says about the file.
    pub fn map(&mut self, request: DmaMap) -> Result<(), Errno> {
        let end = request.address + (request.size - 1);
        let before = self.ranges.range(..=end).next_back();
        if before.is_some_and(|(start, range)| start + (range.size - 1) >= request.address) {
            return Err(Errno::EXIST);
        }
        let source = match request.fd {
            None => None,
            Some(fd) => Some(Source {
                file: self.known(fd.into())?,
                offset: request.offset,
            }),
        };
        self.memory = None;
        let range = Range {
            size: request.size,
            source,
            region: None,
        };
        self.insert(request.address, range)
    }

    /// Takes ranges, or parts of them, away. Those that were never there are no error.
    pub fn unmap(&mut self, request: DmaUnmap) {
        self.memory = None;
        let (start, last) = match request {
            DmaUnmap::All => (0, u64::MAX),
            DmaUnmap::Range { size: 0, .. } => return,
            DmaUnmap::Range { address, size } => (address, address.saturating_add(size - 1)),
        };
        while let Some((at, range)) = self.take_overlapping(start, last) {
            self.put_back(at, range, start, last);
        }
        if self.ranges.is_empty() {
            self.files.clear();
        }
    }

    /// All memory that the device can access; `None` when there is none. Valid until the next
    /// change, by which time it has to be given up.
    pub fn memory(&mut self) -> Option<Arc<GuestMemory>> {
        if self.memory.is_none() {
            let ranges = self.ranges.iter_mut();
            let regions = ranges.filter_map(|(start, range)| range.region(*start));
            let memory = GuestMemory::from_arc_regions(regions.collect()).ok()?;
            self.memory = Some(Arc::new(memory));
        }
        self.memory.clone()
    }

    /// Adds a range, as part of the one before it where they are neighbours in their file, too.
    fn insert(&mut self, start: u64, range: Range) -> Result<(), Errno> {
        if let Some((before, neighbour)) = self.ranges.range_mut(..start).next_back()
            && before + neighbour.size == start
            && neighbour.continues_in(&range)
        {
            neighbour.size += range.size;
            neighbour.region = None;
            return Ok(());
        }
        if self.ranges.len() >= MAX_RANGES {
            return Err(Errno::NOSPC);
        }
        self.ranges.insert(start, range);
        Ok(())
    }

    fn take_overlapping(&mut self, start: u64, last: u64) -> Option<(u64, Range)> {
        let (at, range) = self.ranges.range(..=last).next_back()?;
        let at = *at;
        if at + (range.size - 1) < start {
            return None;
        }
        self.ranges.remove(&at).map(|range| (at, range))
    }

    /// Puts the parts of a range outside `start..=last` back.
    fn put_back(&mut self, at: u64, range: Range, start: u64, last: u64) {
        let end = at + (range.size - 1);
        if at < start {
            self.ranges.insert(at, range.part(0, start - at));
        }
        if end > last {
            let offset = last + 1 - at;
            let tail = range.part(offset, range.size - offset);
            self.ranges.insert(last + 1, tail);
        }
    }

    /// The file, or one of the same inode that is open already.
    fn known(&mut self, file: File) -> Result<Arc<File>, Errno> {
        let metadata = file.metadata();
        let metadata =
            metadata.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        let (device, inode) = (metadata.dev(), metadata.ino());
        let access = fcntl_getfl(&file)? & OFlags::RWMODE;
        self.files.retain(|known| known.file.strong_count() > 0);
        let key = (device, inode, access);
        let same = |known: &&Known| (known.device, known.inode, known.access) == key;
        let open = self.files.iter().find(same);
        if let Some(file) = open.and_then(|known| known.file.upgrade()) {
            return Ok(file);
        }
        let file = Arc::new(file);
        self.files.push(Known {
            device,
            inode,
            access,
            file: Arc::downgrade(&file),
        });
        Ok(file)
    }
}

impl Range {
    /// Whether `next`, whose addresses follow, also follows in the file.
    fn continues_in(&self, next: &Self) -> bool {
        match (&self.source, &next.source) {
            (Some(one), Some(two)) => {
                Arc::ptr_eq(&one.file, &two.file) && one.offset + self.size == two.offset
            }
            (None, None) => true,
            _ => false,
        }
    }

    fn part(&self, offset: u64, size: u64) -> Self {
        let source = self.source.as_ref().map(|source| Source {
            file: source.file.clone(),
            offset: source.offset + offset,
        });
        Self {
            size,
            source,
            region: None,
        }
    }

    /// The range mapped, or nothing when it cannot be accessed.
    fn region(&mut self, start: u64) -> Option<Arc<Region>> {
        if self.region.is_none() {
            let source = self.source.clone()?;
            match Region::map(
                source.file,
                source.offset,
                GuestAddress(start),
                self.size,
                true,
            ) {
                Ok(region) => self.region = Some(Arc::new(region)),
                Err(error) => {
                    debug!("client's memory at {start:#x} cannot be accessed: {error}");
                    self.source = None;
                }
            }
        }
        self.region.clone()
    }
}

#[cfg(test)]
mod tests;
