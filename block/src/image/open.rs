//! Opens an image.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::file::{open_checked, open_error};
use super::qcow2;
use super::{Abilities, Cache, Direct, Format, Image, ImageError, OpenOptions, Qcow2, Storage};
use crate::operation::SECTOR_SIZE;

impl Image {
    /// Opens the regular file or block device at `path`. The size of its disk has to be a multiple
    /// of the sector size.
    ///
    /// # Errors
    ///
    /// See [`ImageError`].
    pub fn open(path: impl AsRef<Path>, options: OpenOptions) -> Result<Self, ImageError> {
        match options.format {
            Format::Raw => Self::open_raw(path.as_ref(), &options),
            Format::Qcow2 => Self::open_qcow2(path.as_ref(), &options),
        }
    }

    fn open_raw(path: &Path, options: &OpenOptions) -> Result<Self, ImageError> {
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

    fn open_qcow2(path: &Path, options: &OpenOptions) -> Result<Self, ImageError> {
        let qcow2 = Qcow2::open(path, options)?;
        let (size, abilities) = (qcow2.size(), qcow2.abilities());
        let block_size = block_size(path, options, &abilities)?;
        check_size(path, size, block_size)?;
        let storage = Storage::Qcow2(Box::new(qcow2));
        Ok(Self::new(storage, size, block_size, options, abilities))
    }
}

fn open_direct(
    path: &Path,
    file: &File,
    options: &OpenOptions,
    abilities: &Abilities,
) -> Result<Direct, ImageError> {
    let direct = Direct::open(path, file, options.read_only, abilities);
    direct.map_err(|source| ImageError::NoDirectIo {
        path: path.into(),
        source,
    })
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

fn block_size(
    path: &Path,
    options: &OpenOptions,
    abilities: &Abilities,
) -> Result<u32, ImageError> {
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

/// Warns if the content of a raw image begins like a qcow2 image. The image is still served as raw,
/// because the driver of a raw disk may have written these bytes.
fn warn_of_format(path: &Path, file: &File) {
    let mut magic = [0; 4];
    if file.read_exact_at(&mut magic, 0).is_ok() && magic == qcow2::MAGIC {
        let path = path.display();
        tracing::warn!(
            "{path} looks like a qcow2 image but is served as a raw one; serve it as qcow2 only \
             if nobody else can have written its first bytes"
        );
    }
}

/// Size in bytes of a file or block device. The size is the position that a seek to the end
/// reports.
fn size_of(file: &mut File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}
