//! Opens the files that images consist of.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::error::ImageError;
use super::lock::{self, Locked};
use super::options::OpenOptions;

/// Opens and locks a file or block device that can be an image.
pub(super) fn open_checked(path: &Path, options: &OpenOptions) -> Result<File, ImageError> {
    // The kind is checked first, because opening a pipe waits until another process opens the pipe.
    let metadata = fs::metadata(path).map_err(|error| open_error(path, error))?;
    check_kind(path, &metadata)?;
    let file = open_file(path, options)?;
    if options.lock {
        lock_file(path, &file, options)?;
    }
    Ok(file)
}

/// Fails if two files that were opened at the same path are different files.
pub(super) fn check_same(one: &File, other: &File) -> io::Result<()> {
    let (one, other) = (one.metadata()?, other.metadata()?);
    if (one.dev(), one.ino()) == (other.dev(), other.ino()) {
        Ok(())
    } else {
        Err(io::Error::other("another file replaced it at this moment"))
    }
}

fn check_kind(path: &Path, metadata: &Metadata) -> Result<(), ImageError> {
    let kind = metadata.file_type();
    if kind.is_dir() {
        Err(ImageError::Directory(path.into()))
    } else if kind.is_file() || kind.is_block_device() {
        Ok(())
    } else {
        Err(ImageError::NotADisk(path.into()))
    }
}

fn open_file(path: &Path, options: &OpenOptions) -> Result<File, ImageError> {
    let open = |write| File::options().read(true).write(write).open(path);
    let error = match open(!options.read_only) {
        Ok(file) => return Ok(file),
        Err(error) => error,
    };
    // `NotWritable` is returned only if the image can be opened read-only, because programs answer
    // this error with the advice to open the image read-only.
    if !options.read_only && open(false).is_ok() {
        return Err(ImageError::NotWritable {
            path: path.into(),
            source: error,
        });
    }
    Err(open_error(path, error))
}

fn lock_file(path: &Path, file: &File, options: &OpenOptions) -> Result<(), ImageError> {
    match lock::lock(file, options.read_only, options.lock_patience) {
        Ok(Locked::Ours) => Ok(()),
        Ok(Locked::OtherWriter) => Err(ImageError::Written(path.into())),
        Ok(Locked::OtherUser) => Err(ImageError::InUse(path.into())),
        // Some file systems do not support locks. Images on such file systems are served without a
        // lock.
        Err(error) => {
            let path = path.display();
            tracing::warn!("cannot lock {path} against other programs: {error}");
            Ok(())
        }
    }
}

/// The error for an image that cannot be opened or read.
pub(super) fn open_error(path: &Path, source: io::Error) -> ImageError {
    match source.kind() {
        ErrorKind::NotFound => ImageError::Missing(path.into()),
        _ => ImageError::Open {
            path: path.into(),
            source,
        },
    }
}
