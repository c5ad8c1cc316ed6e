//! The options for opening an image.

/// How to open an image.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// The format of the image. It is never guessed from the content, because the driver may have
    /// written that.
    pub format: Format,
    /// Never write to the image, and tell the driver so.
    pub read_only: bool,
    /// Free the space of discarded and zeroed ranges.
    pub discard: bool,
    /// The sector size in bytes that drivers are told: 512 or 4096. `None` stands for the sector
    /// size of the storage, which is 512 for a file.
    pub block_size: Option<u32>,
    /// When written data becomes stable.
    pub cache: Cache,
    /// Refuse an image if another program uses it in a conflicting way, and have QEMU refuse an
    /// image that is open here. The locks are those of QEMU.
    pub lock: bool,
}

impl Default for OpenOptions {
    /// A raw, writable, locked image that frees discarded space and has the block size of its
    /// storage.
    fn default() -> Self {
        Self {
            format: Format::default(),
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
    /// The default without a lock, for tests that open an image more than once. (A process that
    /// another test starts holds the file open for a moment, even after this test closed it.)
    pub(crate) fn unlocked() -> Self {
        Self {
            lock: false,
            ..Self::default()
        }
    }
}

/// How a disk is laid out in its image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Byte `n` of the disk is byte `n` of the image.
    #[default]
    Raw,
    /// The format of QEMU. The image may have backing images.
    Qcow2,
}

/// When written data becomes stable, which means that it survives a loss of power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// When the driver flushes, unless it turns its cache off.
    #[default]
    Writeback,
    /// As [`Cache::Writeback`], and the host keeps no copy of the data in its page cache.
    None,
    /// At once, unless the driver turns its cache on.
    Writethrough,
    /// At no certain time: flushes do nothing. For disks that nobody will miss.
    Unsafe,
}
