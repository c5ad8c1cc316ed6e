//! The reasons for which an image cannot be served.

use std::io;
use std::path::PathBuf;

mod qcow2;

pub use qcow2::Qcow2Error;

/// The reason for which an image cannot be served. Each error text is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The path does not exist.
    #[error("disk image {} does not exist", .0.display())]
    Missing(PathBuf),
    /// The image can be read but not written.
    #[error("disk image {} is not writable", path.display())]
    NotWritable {
        /// Path of the image.
        path: PathBuf,
        /// The error that the operating system returned.
        source: io::Error,
    },
    /// The image cannot be opened or examined.
    #[error("cannot open disk image {}", path.display())]
    Open {
        /// Path of the image.
        path: PathBuf,
        /// The error that the operating system returned.
        source: io::Error,
    },
    /// The path names a directory.
    #[error("disk image {} is a directory", .0.display())]
    Directory(PathBuf),
    /// The path names a character device, a pipe or a socket.
    #[error("disk image {} is neither a regular file nor a block device", .0.display())]
    NotADisk(PathBuf),
    /// The image has no sectors.
    #[error("disk image {} is empty", .0.display())]
    Empty(PathBuf),
    /// The size of the image is not a multiple of the sector or block size.
    #[error(
        "disk image {} has {size} bytes, which is not a multiple of {block}",
        path.display()
    )]
    PartialSector {
        /// Path of the image.
        path: PathBuf,
        /// Size of the image in bytes.
        size: u64,
        /// Size of a sector or block in bytes.
        block: u32,
    },
    /// The requested block size is neither 512 nor 4096.
    #[error("a block size of {0} bytes is neither 512 nor 4096")]
    BlockSize(u32),
    /// The requested block size is smaller than the block size of the storage.
    #[error("disk image {} has blocks of {logical} bytes, which is more than the requested block \
             size", path.display())]
    SmallBlocks {
        /// Path of the image.
        path: PathBuf,
        /// The block size of the storage in bytes.
        logical: u32,
    },
    /// Another program writes to the image, or may change its size.
    #[error(
        "another program, perhaps a virtual machine, has disk image {} open for writing",
        .0.display()
    )]
    Written(PathBuf),
    /// Another program reads the image and does not allow writes to it.
    #[error("another program reads disk image {} and needs it unchanged", .0.display())]
    InUse(PathBuf),
    /// The file system does not support direct I/O.
    #[error("disk image {} cannot be opened for direct I/O", path.display())]
    NoDirectIo {
        /// Path of the image.
        path: PathBuf,
        /// The error that the operating system returned.
        source: io::Error,
    },
    /// The image is a zoned block device, which accepts only sequential writes.
    #[error("disk image {} is a zoned device that takes sequential writes only", .0.display())]
    Zoned(PathBuf),
    /// A folder that was allowed for backing images cannot be used.
    #[error("cannot use folder {} for backing images", path.display())]
    BackingFolder {
        /// Path of the folder.
        path: PathBuf,
        /// The error that the operating system returned.
        source: io::Error,
    },
    /// The file cannot be served as a qcow2 image.
    #[error("cannot serve disk image {} as qcow2", path.display())]
    Qcow2 {
        /// Path of the image or of one of its backing images.
        path: PathBuf,
        /// The reason for which the file cannot be served.
        source: Qcow2Error,
    },
}
