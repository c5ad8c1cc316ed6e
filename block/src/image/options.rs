//! The options for opening an image.

use std::path::PathBuf;
use std::time::Duration;

/// How to open an image.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The format of the image. The format is never guessed from the content, because the driver
    /// may have written the content.
    pub format: Format,
    /// Whether the disk is read-only. The image of a read-only disk is never written, and the
    /// device tells drivers that the disk is read-only.
    pub read_only: bool,
    /// Whether to free the space of discarded and zeroed ranges.
    pub discard: bool,
    /// The sector size in bytes that the device reports to drivers: 512 or 4096. `None` stands for
    /// the sector size of the storage, which is 512 for a file.
    pub block_size: Option<u32>,
    /// The cache mode, which decides when written data has to be on stable storage.
    pub cache: Cache,
    /// Whether to lock the image with the locks of QEMU. With these locks, this process refuses an
    /// image that another program uses in a conflicting way, and QEMU refuses an image that this
    /// process uses in a conflicting way.
    pub lock: bool,
    /// The time to wait for the locks of another program, because the other program may be ending.
    /// Opening an image that no other program locks takes none of this time.
    pub lock_patience: Duration,
    /// Folders from which an image may open backing images, with all folders below them. An image
    /// may also open backing images from its own folder, unless the image is a block device.
    pub backing_folders: Vec<PathBuf>,
}

impl Default for OpenOptions {
    /// The options for a raw, writable, locked image that frees discarded space and has the block
    /// size of its storage.
    fn default() -> Self {
        Self {
            format: Format::default(),
            read_only: false,
            discard: true,
            block_size: None,
            cache: Cache::default(),
            lock: true,
            lock_patience: Duration::from_secs(2),
            backing_folders: Vec::new(),
        }
    }
}

#[cfg(test)]
impl OpenOptions {
    /// The default options without a lock, for tests that open an image more than once. With a
    /// lock, the second attempt could fail, because a process that another test starts may hold the
    /// file open for a moment after this test closed the file.
    pub(crate) fn unlocked() -> Self {
        Self {
            lock: false,
            ..Self::default()
        }
    }
}

/// The format of a disk image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Byte `n` of the disk is byte `n` of the image.
    #[default]
    Raw,
    /// The qcow2 format of QEMU. The image may have backing images.
    Qcow2,
}

/// The cache mode, which decides when written data becomes stable. Stable data survives a loss of
/// power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// Written data becomes stable when the driver flushes, unless the driver turns the write cache
    /// off.
    #[default]
    Writeback,
    /// Written data becomes stable as with [`Cache::Writeback`], but does not go through the page
    /// cache of the host.
    None,
    /// The data of each write is stable when the write is acknowledged, unless the driver turns the
    /// write cache on.
    Writethrough,
    /// Flushes do nothing, so written data may never become stable. This mode is for disks whose
    /// loss does not matter.
    Unsafe,
}
