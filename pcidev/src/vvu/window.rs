//! The front-end's memory, which is one file. The device shows the file as a BAR with the same
//! offsets.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::MmapOptions;
use vfio_user::{Area, RegionFlags, RegionInfo};
use vhost_user::{MemoryRegion, MemoryTable};
use virtio::memory::{MemoryFileError, MemoryFiles};

use super::Refusal;

/// Page size in bytes. Files are mapped in whole pages.
const PAGE: u64 = 4096;

/// The file that contains the front-end's memory.
#[derive(Debug)]
pub struct Window {
    file: Arc<File>,
    path: PathBuf,
    size: u64,
    device: u64,
    inode: u64,
    files: MemoryFiles,
    advice: String,
}

/// The reason for which a file cannot be the front-end's memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WindowError {
    /// The file is not a regular file.
    #[error("{}: not a regular file, so it cannot be the front-end's memory", .0.display())]
    NotAFile(PathBuf),
    /// The file is of a kind that is not allowed.
    #[error("{}", .path.display())]
    Kind {
        /// The path of the file.
        path: PathBuf,
        /// The reason why such files are not allowed.
        source: MemoryFileError,
    },
    /// The file is empty or does not consist of whole pages.
    #[error(
        "{}: has {size} bytes; the front-end's memory is a multiple of {PAGE} bytes",
        .path.display()
    )]
    Size {
        /// The path of the file.
        path: PathBuf,
        /// The length of the file in bytes.
        size: u64,
    },
    /// The file system does not support shared memory mappings.
    #[error(
        "{}: cannot be mapped as shared memory; choose a file in /dev/shm",
        .path.display()
    )]
    Map {
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The operating system cannot determine the length of the file.
    #[error("{}: cannot determine the file's length", .path.display())]
    Io {
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl Window {
    /// Takes a file that is open for reading and writing. `path` appears only in error messages.
    /// This file and all memory of peers have to be of the kinds `files`.
    ///
    /// # Errors
    ///
    /// [`WindowError`].
    pub fn new(file: File, path: &Path, files: MemoryFiles) -> Result<Self, WindowError> {
        let path = path.to_owned();
        let metadata = match file.metadata() {
            Ok(metadata) => metadata,
            Err(source) => return Err(WindowError::Io { path, source }),
        };
        let size = metadata.len();
        if !metadata.is_file() {
            return Err(WindowError::NotAFile(path));
        }
        if let Err(source) = files.check(&file) {
            return Err(WindowError::Kind { path, source });
        }
        if size == 0 || size % PAGE != 0 {
            return Err(WindowError::Size { path, size });
        }
        if let Err(source) = try_mapping(&file) {
            return Err(WindowError::Map { path, source });
        }
        Ok(Self {
            file: Arc::new(file),
            path,
            size,
            device: metadata.dev(),
            inode: metadata.ino(),
            files,
            advice: String::new(),
        })
    }

    /// Sets the advice at the end of an error message. The message says that a front-end's memory
    /// is not this file, and the advice tells users how to make the front-end use this file.
    pub fn advising(mut self, advice: &str) -> Self {
        self.advice = format!("; {advice}");
        self
    }

    /// The kinds of files that may be memory of peers.
    pub(super) fn files(&self) -> MemoryFiles {
        self.files
    }

    /// Length of the file in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The memory as a BAR. The length of the BAR is the length of the file, rounded up to a power
    /// of two. Clients can map the part that the file covers.
    pub fn region(&self) -> RegionInfo {
        RegionInfo {
            flags: RegionFlags::READ | RegionFlags::WRITE | RegionFlags::MMAP,
            size: self.size.next_power_of_two(),
            offset: 0,
            areas: vec![Area {
                offset: 0,
                size: self.size,
            }],
            file: Some(self.file.clone()),
        }
    }

    /// Reads memory. Reads past the end return 0.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        // Bytes that cannot be read stay 0.
        let _ = self.file.read_at(data, offset);
    }

    /// Writes memory. Bytes past the end are ignored.
    pub fn write(&self, offset: u64, data: &[u8]) {
        let space = self.size.saturating_sub(offset).min(data.len() as u64);
        let _ = self.file.write_at(&data[..space as usize], offset);
    }

    /// Checks a memory table against the file, and changes the table for the driver. Sorts the
    /// regions by their offset in the file, and replaces each offset by the length of the gap
    /// before the region. To find a region's data in the BAR, the driver adds the offsets and
    /// lengths of all earlier regions and the region's own offset.
    pub(super) fn translate(
        &self,
        table: MemoryTable<OwnedFd>,
    ) -> Result<MemoryTable<OwnedFd>, Refusal> {
        let mut regions = table.into_regions();
        regions.sort_by_key(|region| region.file_offset);
        let mut end = 0;
        for region in &mut regions {
            self.check_file(&region.memory)?;
            (region.file_offset, end) = self.place(region, end)?;
        }
        Ok(MemoryTable::new(regions)?)
    }

    fn check_file(&self, fd: &OwnedFd) -> Result<(), Refusal> {
        // This check comes before any other use of the descriptor. The file may be in a file system
        // that never answers (FUSE), and another use would then block.
        self.files.check(fd)?;
        let stat = rustix::fs::fstat(fd).map_err(io::Error::from)?;
        if (stat.st_dev, stat.st_ino) == (self.device, self.inode) {
            return Ok(());
        }
        Err(Refusal::OtherFile {
            path: self.path.clone(),
            advice: self.advice.clone(),
        })
    }

    /// Returns the length of the gap before a region, and the offset of the region's end in the
    /// file. The gap begins at `end`, where the previous region ends.
    fn place<M>(&self, region: &MemoryRegion<M>, end: u64) -> Result<(u64, u64), Refusal> {
        let (start, size) = (region.file_offset, region.size);
        let own_end = start.checked_add(size).filter(|end| *end <= self.size);
        let own_end = own_end.ok_or(Refusal::LeavesFile(start))?;
        let gap = start.checked_sub(end).ok_or(Refusal::Overlap(start))?;
        Ok((gap, own_end))
    }
}

/// Maps one page, to check that the file can be mapped.
fn try_mapping(file: &File) -> io::Result<()> {
    MmapOptions::new()
        .len(PAGE as usize)
        .map_raw(file)
        .map(drop)
}

#[cfg(test)]
mod tests;
