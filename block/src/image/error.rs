//! Why an image cannot be served.

use std::io;
use std::path::PathBuf;

use super::Qcow2Error;

/// Why an image cannot be served. Each text is one line that says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Nothing is at this path.
    #[error("disk image {} does not exist; create it first, for instance with `truncate -s 1G`", .0.display())]
    Missing(PathBuf),
    /// The image can be read but not written.
    #[error("disk image {} is not writable: {source}; use --read-only or change its permissions", path.display())]
    NotWritable {
        /// The image.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The image cannot be opened or looked at at all.
    #[error("cannot open disk image {}: {source}", path.display())]
    Open {
        /// The image.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The path names a directory.
    #[error("disk image {} is a directory; name a file or block device in it", .0.display())]
    Directory(PathBuf),
    /// The path names a character device, a pipe or a socket.
    #[error("disk image {} is neither a regular file nor a block device", .0.display())]
    NotADisk(PathBuf),
    /// The image has no sectors.
    #[error("disk image {} is empty; give it a size first, for instance with `truncate -s 1G`", .0.display())]
    Empty(PathBuf),
    /// The last sector or block is not whole.
    #[error("disk image {} has {size} bytes, which is not a multiple of {block}; \
             extend it with `truncate -s %{block}`", path.display())]
    PartialSector {
        /// The image.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// Size of a sector or block in bytes.
        block: u32,
    },
    /// Neither 512 nor 4096.
    #[error("block size {0}: it has to be 512 or 4096")]
    BlockSize(u32),
    /// The device cannot take blocks as small.
    #[error("disk image {} has blocks of {logical} bytes; leave out --block-size or make it {logical}", path.display())]
    SmallBlocks {
        /// The image.
        path: PathBuf,
        /// Its block size in bytes.
        logical: u32,
    },
    /// Somebody else writes to it.
    #[error("disk image {} is being written by another program, perhaps a virtual machine; \
             stop that one, or use --lock=off where both know of each other", .0.display())]
    Written(PathBuf),
    /// Somebody else reads it and relies on its not changing.
    #[error("disk image {} is in use by another program, which relies on its not changing; \
             stop that one, or use --read-only, or --lock=off", .0.display())]
    InUse(PathBuf),
    /// The file system has no direct I/O.
    #[error("disk image {} cannot be used past the page cache: {source}; use another --cache", path.display())]
    NoDirectIo {
        /// The image.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A zoned block device, which takes no random writes.
    #[error("disk image {} is a zoned device that takes sequential writes only; \
             serve a device without zones, or this one read-only", .0.display())]
    Zoned(PathBuf),
    /// It cannot be served as a qcow2 image.
    #[error("disk image {} as qcow2: {source}", path.display())]
    Qcow2 {
        /// The image, or one of those below it.
        path: PathBuf,
        /// Why not.
        source: Qcow2Error,
    },
}
