//! Disk images: raw files, host block devices, and qcow2 images.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::operation::{Operation, SECTOR_SIZE, Step};
use crate::request::{Change, ChangedRange, Limits};

mod abilities;
mod direct;
mod error;
mod file;
mod lock;
mod open;
mod options;
mod qcow2;

pub(crate) use abilities::Abilities;
use abilities::is_in_memory;
pub(crate) use direct::{Alignment, Direct};
pub use error::{ImageError, Qcow2Error};
pub use options::{Cache, Format, OpenOptions};
pub(crate) use qcow2::Qcow2;

/// A disk image. The size is read when the image is opened. Requests cannot change the size.
#[derive(Debug)]
pub struct Image {
    storage: Storage,
    size: u64,
    read_only: bool,
    block_size: u32,
    abilities: Abilities,
    /// The limits for requests to this image. They follow from the other fields of the image.
    limits: Limits,
    cache: Cache,
    /// Whether the file is in memory (for example on tmpfs), so that calls never wait for a device.
    in_memory: bool,
    /// The same image, opened for direct I/O, which bypasses the page cache. `None` if all data
    /// goes through the page cache.
    direct: Option<Direct>,
    /// Whether unstable data has ever been in a cache of this host: in the page cache, or in the
    /// tables of a qcow2 image. A failed flush can lose such data.
    volatile: AtomicBool,
    /// Whether a flush has failed. The kernel then does not know any more which writes were lost.
    lost: AtomicBool,
}

/// The storage that holds the disk's content.
#[derive(Debug)]
enum Storage {
    /// Byte `n` of the disk is byte `n` of the file or block device.
    Raw(File),
    Qcow2(Box<Qcow2>),
}

/// The object on which operations are carried out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    /// A file or block device, accessed with system calls.
    File(BorrowedFd<'a>),
    /// A qcow2 image, accessed through the qcow2 library. During a call, nothing else may access
    /// the data buffers.
    Qcow2(&'a Qcow2),
}

impl Image {
    fn new(
        storage: Storage,
        size: u64,
        block_size: u32,
        options: &OpenOptions,
        abilities: Abilities,
    ) -> Self {
        let writable = !options.read_only;
        Self {
            in_memory: matches!(&storage, Storage::Raw(file) if is_in_memory(file)),
            storage,
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
            volatile: AtomicBool::new(false),
            lost: AtomicBool::new(false),
        }
    }

    /// Size in sectors of [`SECTOR_SIZE`] bytes.
    pub fn sectors(&self) -> u64 {
        self.size / SECTOR_SIZE
    }

    /// Whether the image is read-only, so that requests never write to it.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// The sector size in bytes that the device reports to drivers. It is a multiple of the sector
    /// size of the storage.
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Waits until all data written so far is on stable storage. Does nothing with
    /// [`Cache::Unsafe`].
    ///
    /// # Errors
    ///
    /// When this flush fails, or when an earlier flush failed and the image is used without direct
    /// I/O. Data may be lost after a failed flush.
    pub fn sync(&self) -> io::Result<()> {
        if !self.flushes() {
            return Ok(());
        }
        if self.has_lost_writes() {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.flush().inspect_err(|_| self.flush_failed())
    }

    /// A duplicate of the descriptor that [`Image::sync`] flushes. With the duplicate, another
    /// process can flush the image when this process cannot. `None` if flushes have no effect.
    ///
    /// # Errors
    ///
    /// When the operating system is out of file descriptors.
    pub fn file_to_sync(&self) -> io::Result<Option<OwnedFd>> {
        let file = match &self.storage {
            Storage::Raw(file) => file,
            Storage::Qcow2(qcow2) => qcow2.file(),
        };
        let file = self.flushes().then(|| file.try_clone().map(OwnedFd::from));
        file.transpose()
    }

    fn flush(&self) -> io::Result<()> {
        match &self.storage {
            Storage::Raw(file) => file.sync_data(),
            Storage::Qcow2(qcow2) => qcow2.flush(),
        }
    }

    /// The object on which an operation is carried out. With `direct`, this is the file for direct
    /// I/O if the image has one.
    pub(crate) fn target(&self, operation: Operation, direct: bool) -> Target<'_> {
        if let Some(way) = self.direct.as_ref().filter(|_| direct) {
            return Target::File(way.file.as_fd());
        }
        // The flag is stored only once. All queues read it, and a store slows down the next read of
        // each queue (cache line transfer).
        if operation.is_volatile() && !self.volatile.load(Ordering::Relaxed) {
            self.volatile.store(true, Ordering::Relaxed);
        }
        match &self.storage {
            Storage::Qcow2(qcow2) => Target::Qcow2(qcow2),
            Storage::Raw(file) => Target::File(file.as_fd()),
        }
    }

    /// Whether the image has a format other than raw, so that plain system calls cannot read and
    /// write its disk.
    pub(crate) fn is_formatted(&self) -> bool {
        matches!(self.storage, Storage::Qcow2(_))
    }

    /// Whether an earlier flush through the page cache has failed. A later flush then cannot
    /// guarantee that all data is on stable storage.
    pub(crate) fn has_lost_writes(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Records that an operation failed. With `direct`, the operation used the file for direct I/O
    /// if the image has one.
    ///
    /// A stable write through the page cache includes a flush. If this flush fails, the failure may
    /// be the kernel's only report that an earlier write was lost.
    pub(crate) fn failed(&self, operation: Operation, direct: bool) {
        let bypassed = direct && self.direct.is_some();
        if operation.flushes() && !bypassed {
            self.flush_failed();
        }
    }

    /// Records a failed flush, so that all later flushes fail. The kernel reports each failure once
    /// and may then drop the data, so the next flush would succeed although the data is lost.
    ///
    /// Records nothing if all data has bypassed the page cache. Each direct write reports its own
    /// failure, so a later flush may succeed.
    fn flush_failed(&self) {
        let volatile = self.volatile.load(Ordering::Relaxed);
        if volatile && !self.lost.swap(true, Ordering::Relaxed) {
            tracing::error!(
                "a flush failed, so the image may have lost writes; \
                 all flushes fail until the image is opened again"
            );
        }
    }

    /// Whether the image is in memory (for example on tmpfs), so that calls never wait for a
    /// device.
    pub(crate) fn in_memory(&self) -> bool {
        self.in_memory
    }

    /// The file for direct I/O. `None` if all data goes through the page cache.
    pub(crate) fn direct(&self) -> Option<&Direct> {
        self.direct.as_ref()
    }

    /// Whether flushes have an effect. False for [`Cache::Unsafe`].
    pub(crate) fn flushes(&self) -> bool {
        self.cache != Cache::Unsafe
    }

    /// The cache mode with which the image was opened. The mode decides when written data has to be
    /// on stable storage.
    pub(crate) fn cache(&self) -> Cache {
        self.cache
    }

    /// Makes an image of any file, for tests of storage that fails.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn from_file(file: File, size: u64, abilities: Abilities) -> Self {
        let block_size = abilities.logical_block;
        let (storage, options) = (Storage::Raw(file), OpenOptions::default());
        Self::new(storage, size, block_size, &options, abilities)
    }

    /// The same image with another cache mode.
    #[cfg(test)]
    pub(crate) fn cached(self, cache: Cache) -> Self {
        Self { cache, ..self }
    }

    /// The limits for requests to this image.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The abilities of the storage, including those that the device does not offer to drivers.
    pub(crate) fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    /// The operations that carry out a change. If `stable` is true and the change writes zeroes,
    /// the last operation is a flush.
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

#[cfg(test)]
mod tests;
