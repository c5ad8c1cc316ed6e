//! Opening an image, and the options for that.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;

use super::lock::{self, Conflict};
use super::qcow2;
use super::{Abilities, Direct, Image, ImageError, Qcow2, Storage};
use crate::request::SECTOR_SIZE;

/// How to open an image.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// What the image is; never guessed from its content, which a driver may have written.
    pub format: Format,
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
    /// Raw, writable, locked, giving back what is discarded, with the storage's block size.
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
    /// Without a lock, for tests that open an image more than once. (Even after it was closed, a
    /// process that another test is just starting has the file for a moment.)
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
    /// Byte for byte.
    #[default]
    Raw,
    /// In QEMU's format, perhaps on top of other images.
    Qcow2,
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
    /// Opens the regular file or block device at `path`, whose disk has to have whole sectors.
    ///
    /// # Errors
    ///
    /// See [`ImageError`].
    pub fn open(path: impl AsRef<Path>, options: OpenOptions) -> Result<Self, ImageError> {
        match options.format {
            Format::Raw => Self::open_raw(path.as_ref(), options),
            Format::Qcow2 => Self::open_qcow2(path.as_ref(), options),
        }
    }

    fn open_raw(path: &Path, options: OpenOptions) -> Result<Self, ImageError> {
        let mut file = open_checked(path, options)?;
        let failed = |error| open_error(path, error);
        let size = size_of(&mut file).map_err(failed)?;
        check_size(path, size, SECTOR_SIZE as u32)?;
        let abilities = Abilities::probe(&file, size).map_err(failed)?;
        if abilities.zoned && !options.read_only {
            return Err(ImageError::Zoned(path.into()));
        }
        warn_of_format(path, &file);
        let block_size = block_size(path, options, &abilities)?;
        check_size(path, size, block_size)?;
        let direct = match options.cache {
            Cache::None => Some(open_direct(path, &file, options, &abilities)?),
            _ => None,
        };
        let mut image = Self::new(Storage::Raw(file), size, block_size, options, abilities);
        image.direct = direct;
        Ok(image)
    }

    fn open_qcow2(path: &Path, options: OpenOptions) -> Result<Self, ImageError> {
        let qcow2 = Qcow2::open(path, options)?;
        let (size, abilities) = (qcow2.size(), Abilities::of_qcow2(&qcow2));
        let block_size = block_size(path, options, &abilities)?;
        check_size(path, size, block_size)?;
        let storage = Storage::Qcow2(Box::new(qcow2));
        Ok(Self::new(storage, size, block_size, options, abilities))
    }
}

/// Opens and locks what can be an image.
pub(super) fn open_checked(path: &Path, options: OpenOptions) -> Result<File, ImageError> {
    // Looked at before it is opened, because opening a pipe waits for its other end.
    let metadata = fs::metadata(path).map_err(|error| open_error(path, error))?;
    check_kind(path, &metadata)?;
    let file = open_file(path, options)?;
    if options.lock {
        lock_file(path, &file, options.read_only)?;
    }
    Ok(file)
}

fn open_direct(
    path: &Path,
    file: &File,
    options: OpenOptions,
    abilities: &Abilities,
) -> Result<Direct, ImageError> {
    let direct = Direct::open(path, file, options.read_only, abilities);
    direct.map_err(|source| ImageError::NoDirectIo {
        path: path.into(),
        source,
    })
}

/// Fails when two files that were opened by the same path are not the same.
pub(super) fn same_file(one: &File, other: &File) -> io::Result<()> {
    let (one, other) = (one.metadata()?, other.metadata()?);
    match (one.dev(), one.ino()) == (other.dev(), other.ino()) {
        true => Ok(()),
        false => Err(io::Error::other("it was replaced in this moment")),
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

/// What the image holds is the driver's to write, so it must not decide how it is read.
fn warn_of_format(path: &Path, file: &File) {
    let mut magic = [0; 4];
    if file.read_exact_at(&mut magic, 0).is_ok() && magic == qcow2::MAGIC {
        let path = path.display();
        tracing::warn!(
            "{path} looks like a qcow2 image, but is served as a raw one; \
             if it is one, and nobody else wrote its first bytes, use --format=qcow2"
        );
    }
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
