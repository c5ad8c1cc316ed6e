//! Disk images: raw files, host block devices, and qcow2 images.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::request::{Change, ChangedRange, Limits, SECTOR_SIZE};
use crate::transfer::{Operation, Step};

mod abilities;
mod direct;
mod error;
mod lock;
mod open;
mod qcow2;

pub(crate) use abilities::Abilities;
use abilities::is_in_memory;
pub(crate) use direct::{Alignment, Direct};
pub use error::ImageError;
pub use open::{Cache, Format, OpenOptions};
pub(crate) use qcow2::Qcow2;
pub use qcow2::Qcow2Error;

/// A disk image. Its size is taken when it is opened and never changed by anything done through it.
#[derive(Debug)]
pub struct Image {
    storage: Storage,
    size: u64,
    read_only: bool,
    block_size: u32,
    abilities: Abilities,
    /// What requests have to stay within, which follows from the above.
    limits: Limits,
    cache: Cache,
    /// Calls never wait for a device.
    in_memory: bool,
    /// Past the page cache; `None`: everything goes through it.
    direct: Option<Direct>,
    /// A flush has failed, after which the kernel does not know any more what was lost.
    lost: AtomicBool,
}

/// Where the disk's content is.
#[derive(Debug)]
enum Storage {
    /// Byte `n` of the disk is byte `n` of the file or block device.
    Raw(File),
    Qcow2(Box<Qcow2>),
}

/// What operations are carried out on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    /// By system calls.
    File(BorrowedFd<'a>),
    /// By whoever knows the format; data has to be in memory that nobody else writes.
    Qcow2(&'a Qcow2),
}

impl Image {
    fn new(
        storage: Storage,
        size: u64,
        block_size: u32,
        options: OpenOptions,
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
            lost: AtomicBool::new(false),
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
            true => self.flush().inspect_err(|_| self.flush_failed()),
            false => Ok(()),
        }
    }

    fn flush(&self) -> io::Result<()> {
        match &self.storage {
            Storage::Raw(file) => file.sync_data(),
            Storage::Qcow2(qcow2) => qcow2.flush(),
        }
    }

    /// What operations are carried out on, past the page cache if there is a way.
    pub(crate) fn target(&self, direct: bool) -> Target<'_> {
        match (&self.storage, &self.direct) {
            (Storage::Qcow2(qcow2), _) => Target::Qcow2(qcow2),
            (Storage::Raw(_), Some(way)) if direct => Target::File(way.file.as_fd()),
            (Storage::Raw(file), _) => Target::File(file.as_fd()),
        }
    }

    /// True when it is not system calls alone that it takes to read and write it.
    pub(crate) fn is_formatted(&self) -> bool {
        matches!(self.storage, Storage::Qcow2(_))
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

    /// True when calls never wait for a device.
    pub(crate) fn in_memory(&self) -> bool {
        self.in_memory
    }

    /// The way past the page cache, if that is the one to take.
    pub(crate) fn direct(&self) -> Option<&Direct> {
        self.direct.as_ref()
    }

    /// False when nobody cares whether what is written becomes stable.
    pub(crate) fn flushes(&self) -> bool {
        self.cache != Cache::Unsafe
    }

    /// When writes become stable.
    pub(crate) fn cache(&self) -> Cache {
        self.cache
    }

    /// Any file as an image, for tests of storage that fails.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn from_file(file: File, size: u64, abilities: Abilities) -> Self {
        let block_size = abilities.logical_block;
        let (storage, options) = (Storage::Raw(file), OpenOptions::default());
        Self::new(storage, size, block_size, options, abilities)
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

#[cfg(test)]
mod tests;
