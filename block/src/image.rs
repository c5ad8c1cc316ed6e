//! Disk images: raw files and host block devices.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::request::{Change, ChangedRange, Limits, SECTOR_SIZE};
use crate::transfer::{Operation, Step};

mod abilities;
mod direct;
mod error;
mod lock;

pub(crate) use abilities::Abilities;
pub(crate) use direct::{Alignment, Direct};
pub use error::ImageError;
use lock::Conflict;

/// How to open an image.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// Never write to the image, and tell the driver so.
    pub read_only: bool,
    /// Give the space of discarded and zeroed ranges back.
    pub discard: bool,
    /// The sector size in bytes that drivers are told: 512 or 4096. `None`: the storage's own,
    /// which is 512 for a file.
    pub block_size: Option<u32>,
    /// When what is written becomes stable.
    pub cache: Cache,
    /// Refuse an image that another program uses in a way that does not go together with ours, as
    /// QEMU does; and have QEMU refuse ours.
    pub lock: bool,
}

impl Default for OpenOptions {
    /// Writable, locked, giving back what is discarded, with the storage's block size.
    fn default() -> Self {
        Self {
            read_only: false,
            discard: true,
            block_size: None,
            cache: Cache::default(),
            lock: true,
        }
    }
}

#[cfg(test)]
impl OpenOptions {
    /// Without a lock, for tests that open an image more than once. (Even after it was closed, a
    /// process that another test is just starting has the file for a moment.)
    pub(crate) fn unlocked() -> Self {
        Self {
            lock: false,
            ..Self::default()
        }
    }
}

/// A raw disk image: byte `n` of the disk is byte `n` of the file or block device.
///
/// Its size is taken when it is opened and never changed by anything done through it.
#[derive(Debug)]
pub struct Image {
    file: File,
    size: u64,
    read_only: bool,
    block_size: u32,
    abilities: Abilities,
    /// What requests have to stay within, which follows from the above.
    limits: Limits,
    cache: Cache,
    /// Past the page cache; `None`: everything goes through it.
    direct: Option<Direct>,
    /// A flush has failed, after which the kernel does not know any more what was lost.
    lost: AtomicBool,
    /// Drivers are told that writes are stable after a flush only.
    writeback: AtomicBool,
}

/// When what is written becomes stable, that is survives a loss of power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// When the driver flushes, unless it turns its cache off.
    #[default]
    Writeback,
    /// The same, and the host keeps no copy of what is read and written.
    None,
    /// At once, unless the driver turns its cache on.
    Writethrough,
    /// At any time: flushes do nothing. For disks that nobody will miss.
    Unsafe,
}

impl Image {
    /// Opens the regular file or block device at `path`, which has to hold whole sectors.
    ///
    /// # Errors
    ///
    /// See [`ImageError`].
    pub fn open(path: impl AsRef<Path>, options: OpenOptions) -> Result<Self, ImageError> {
        let path = path.as_ref();
        // Looked at before it is opened, because opening a pipe waits for its other end.
        let metadata = fs::metadata(path).map_err(|error| open_error(path, error))?;
        check_kind(path, &metadata)?;
        let mut file = open_file(path, options)?;
        if options.lock {
            lock_file(path, &file, options.read_only)?;
        }
        let failed = |error| open_error(path, error);
        let size = size_of(&mut file).map_err(failed)?;
        check_size(path, size, SECTOR_SIZE as u32)?;
        let abilities = Abilities::probe(&file, size).map_err(failed)?;
        if abilities.zoned && !options.read_only {
            return Err(ImageError::Zoned(path.into()));
        }
        let block_size = block_size(path, options, &abilities)?;
        check_size(path, size, block_size)?;
        let mut image = Self::new(file, size, block_size, options, abilities);
        if options.cache == Cache::None {
            let direct = Direct::open(path, options.read_only, &abilities);
            image.direct = Some(direct.map_err(|source| ImageError::NoDirectIo {
                path: path.into(),
                source,
            })?);
        }
        Ok(image)
    }

    fn new(
        file: File,
        size: u64,
        block_size: u32,
        options: OpenOptions,
        abilities: Abilities,
    ) -> Self {
        let writable = !options.read_only;
        Self {
            file,
            size,
            read_only: options.read_only,
            block_size,
            abilities,
            limits: Limits {
                size,
                read_only: options.read_only,
                logical_block: abilities.logical_block,
                discard: writable && options.discard && abilities.discard.is_some(),
                write_zeroes: writable && abilities.zero,
                secure_erase: writable && abilities.secure_erase,
            },
            cache: options.cache,
            direct: None,
            lost: AtomicBool::new(false),
            writeback: AtomicBool::new(options.cache != Cache::Writethrough),
        }
    }

    /// Size in sectors of [`SECTOR_SIZE`] bytes.
    pub fn sectors(&self) -> u64 {
        self.size / SECTOR_SIZE
    }

    /// True when nothing is ever written to it.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// What drivers are told as the size of a sector in bytes; a multiple of the storage's.
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Waits until everything written so far is on stable storage.
    ///
    /// # Errors
    ///
    /// Whatever the storage says; data may be lost then.
    pub fn sync(&self) -> io::Result<()> {
        match self.flushes() {
            true if self.has_lost_writes() => Err(io::Error::from_raw_os_error(libc::EIO)),
            true => self.file.sync_data().inspect_err(|_| self.flush_failed()),
            false => Ok(()),
        }
    }

    /// True when an earlier flush has failed, so that no later one can promise anything.
    pub(crate) fn has_lost_writes(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Takes note of a failed flush. The kernel reports each failure once and may drop the data
    /// then, so that the next flush, perhaps another queue's, would succeed without it. Where data
    /// goes past the page cache, writes themselves have failed, and a flush can be tried again.
    pub(crate) fn flush_failed(&self) {
        if self.direct.is_none() && !self.lost.swap(true, Ordering::Relaxed) {
            tracing::error!(
                "the image has lost writes as a flush failed; all flushes fail until a restart"
            );
        }
    }

    /// The way past the page cache, if that is the one to take.
    pub(crate) fn direct(&self) -> Option<&Direct> {
        self.direct.as_ref()
    }

    /// False when nobody cares whether what is written becomes stable.
    pub(crate) fn flushes(&self) -> bool {
        self.cache != Cache::Unsafe
    }

    /// True while writes are stable after a flush only.
    pub(crate) fn writeback(&self) -> bool {
        self.writeback.load(Ordering::Relaxed)
    }

    /// True when a driver may choose between write-back and write-through.
    pub(crate) fn cache_can_change(&self) -> bool {
        !self.read_only && self.flushes()
    }

    /// Turns a driver's cache on or off.
    pub(crate) fn set_writeback(&self, writeback: bool) {
        self.writeback.store(writeback, Ordering::Relaxed);
        // The driver will not flush any more what was written before.
        if !writeback && let Err(error) = self.sync() {
            tracing::error!("flushing the image as its write cache is turned off: {error}");
        }
    }

    /// Any file as an image, for tests of storage that fails.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn from_file(file: File, size: u64, abilities: Abilities) -> Self {
        let block_size = abilities.logical_block;
        Self::new(file, size, block_size, OpenOptions::default(), abilities)
    }

    /// The same with another cache.
    #[cfg(test)]
    pub(crate) fn cached(self, cache: Cache) -> Self {
        Self { cache, ..self }
    }

    /// What a request has to stay within.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What the storage can do, whether it is offered to drivers or not.
    pub(crate) fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    /// How a change is carried out; `stable`: so that it is on stable storage in the end.
    pub(crate) fn steps(&self, change: Change, ranges: &[ChangedRange], stable: bool) -> Vec<Step> {
        let step = |changed: &ChangedRange| Step {
            operation: self.operation(change, changed.unmap),
            range: changed.range,
        };
        let mut steps: Vec<_> = ranges.iter().map(step).collect();
        if stable && change == Change::WriteZeroes {
            steps.push(Step::FLUSH);
        }
        steps
    }

    fn operation(&self, change: Change, unmap: bool) -> Operation {
        match change {
            Change::SecureErase => Operation::SecureErase,
            Change::Discard if self.abilities.block_device => Operation::Discard,
            Change::Discard => Operation::Punch,
            Change::WriteZeroes if unmap && self.limits.discard => Operation::Unmap,
            Change::WriteZeroes => Operation::Zero,
        }
    }
}

impl AsFd for Image {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Image {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

fn check_kind(path: &Path, metadata: &Metadata) -> Result<(), ImageError> {
    let kind = metadata.file_type();
    match () {
        () if kind.is_dir() => Err(ImageError::Directory(path.into())),
        () if kind.is_file() || kind.is_block_device() => Ok(()),
        () => Err(ImageError::NotADisk(path.into())),
    }
}

fn check_size(path: &Path, size: u64, block: u32) -> Result<(), ImageError> {
    match size % u64::from(block) {
        _ if size == 0 => Err(ImageError::Empty(path.into())),
        0 => Ok(()),
        _ => Err(ImageError::PartialSector {
            path: path.into(),
            size,
            block,
        }),
    }
}

fn block_size(path: &Path, options: OpenOptions, abilities: &Abilities) -> Result<u32, ImageError> {
    let logical = abilities.logical_block;
    match options.block_size {
        None => Ok(logical),
        Some(size) if size != 512 && size != 4096 => Err(ImageError::BlockSize(size)),
        Some(size) if size < logical => Err(ImageError::SmallBlocks {
            path: path.into(),
            logical,
        }),
        Some(size) => Ok(size),
    }
}

fn open_file(path: &Path, options: OpenOptions) -> Result<File, ImageError> {
    let open = |write| File::options().read(true).write(write).open(path);
    let error = match open(!options.read_only) {
        Ok(file) => return Ok(file),
        Err(error) => error,
    };
    // `--read-only` is only good advice where it helps.
    if !options.read_only && open(false).is_ok() {
        return Err(ImageError::NotWritable {
            path: path.into(),
            source: error,
        });
    }
    Err(open_error(path, error))
}

fn lock_file(path: &Path, file: &File, read_only: bool) -> Result<(), ImageError> {
    match lock::lock(file, read_only) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Conflict::OtherWriter)) => Err(ImageError::Written(path.into())),
        Ok(Err(Conflict::OtherUser)) => Err(ImageError::InUse(path.into())),
        // Some file systems have no locks, which is no reason to refuse their images.
        Err(error) => {
            tracing::warn!(
                "{} cannot be locked against other programs: {error}",
                path.display()
            );
            Ok(())
        }
    }
}

fn open_error(path: &Path, source: io::Error) -> ImageError {
    match source.kind() {
        ErrorKind::NotFound => ImageError::Missing(path.into()),
        _ => ImageError::Open {
            path: path.into(),
            source,
        },
    }
}

/// Size in bytes. The end is where a seek says, for a block device as for a file.
fn size_of(file: &mut File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

#[cfg(test)]
mod tests;
