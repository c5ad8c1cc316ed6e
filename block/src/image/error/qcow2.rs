//! The reasons for which a file cannot be served as a qcow2 image.

use std::io;
use std::path::PathBuf;

/// The reason for which a file cannot be served as a qcow2 image. Each error text is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Qcow2Error {
    /// The file does not begin with the header of a qcow2 image.
    #[error("it is not a qcow2 image")]
    NotQcow2,
    /// The image has an unknown version of the format.
    #[error("version {0} of the format is unknown; versions 2 and 3 are known")]
    Version(u32),
    /// The content of the image is encrypted.
    #[error("it is encrypted")]
    Encrypted,
    /// The last program that used the image did not close it properly, or found it corrupt.
    #[error("it was not closed properly, or is corrupt")]
    Dirty,
    /// The image uses a feature of the format that is not supported.
    #[error("it uses {0}, which is not supported")]
    Features(&'static str),
    /// The size of the disk is 0 or not a multiple of the sector size.
    #[error("its disk has {0} bytes, which is 0 or not a multiple of 512")]
    Size(u64),
    /// The content of the image contradicts the format.
    #[error("it is corrupt: {0}")]
    Corrupt(&'static str),
    /// The image names a backing file but not the format of the backing file. This crate never
    /// guesses the format.
    #[error("it does not name the format of its backing file {file}")]
    NoBackingFormat {
        /// Name of the backing file, as the image contains it.
        file: String,
    },
    /// A backing file has a format that is not supported.
    #[error("its backing file {file} has the format {format}, which is neither raw nor qcow2")]
    BackingFormat {
        /// Name of the backing file, as the image contains it.
        file: String,
        /// Name of the format, as the image contains it.
        format: String,
    },
    /// A backing file is not a local file.
    #[error("its backing file {0} is not a local file")]
    NotAFile(String),
    /// A backing file is neither in the folder of the image nor in a folder that was allowed.
    #[error("its backing file {} is in a folder that it may not use", file.display())]
    BackingElsewhere {
        /// Path of the backing file, without symbolic links.
        file: PathBuf,
    },
    /// The image has more backing images than are allowed.
    #[error("it has more than {0} backing images")]
    TooDeep(usize),
    /// The image is one of its own backing images.
    #[error("it is one of its own backing images")]
    Cycle,
    /// The file cannot be read, or the qcow2 library refuses it.
    #[error("cannot read it")]
    Io(#[from] io::Error),
}
