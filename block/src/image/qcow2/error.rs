//! Why a file cannot be served as a qcow2 image.

use std::io;

/// Why a file cannot be served as a qcow2 image, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Qcow2Error {
    /// It does not begin like one.
    #[error("it is none; `qemu-img info` says what it is, and --format=raw serves it as it is")]
    NotQcow2,
    /// A version of the format that is not known.
    #[error("version {0} of the format is not known, only 2 and 3")]
    Version(u32),
    /// Its content is encrypted.
    #[error("it is encrypted; make one that is not with `qemu-img convert -O qcow2`")]
    Encrypted,
    /// It was not closed as it should have been.
    #[error("it was not closed properly, or is corrupt; repair it with `qemu-img check -r all`")]
    Dirty,
    /// It needs abilities that are not there.
    #[error("it uses {0}; make one without with `qemu-img convert -O qcow2`")]
    Features(&'static str),
    /// A size that no disk has.
    #[error(
        "a disk of {0} bytes, which is no multiple of 512, cannot be served; \
             change that with `qemu-img resize`"
    )]
    Size(u64),
    /// A cluster size or table size outside of what the format allows.
    #[error("it is corrupt: {0}")]
    Corrupt(&'static str),
    /// It names another image, but not that one's format, which is never guessed.
    #[error(
        "it does not say which format its backing file {file} has; \
             say it with `qemu-img rebase -u -b {file} -F qcow2` (or raw)"
    )]
    NoBackingFormat {
        /// The backing file as the image names it.
        file: String,
    },
    /// A backing file in a format that is not known.
    #[error(
        "its backing file {file} has the format {format}, but only raw and qcow2 can be served"
    )]
    BackingFormat {
        /// The backing file as the image names it.
        file: String,
        /// Its format as the image names it.
        format: String,
    },
    /// A backing file that is no file.
    #[error("its backing file {0} is none of the file system's")]
    NotAFile(String),
    /// More images upon each other than are allowed.
    #[error(
        "there are more than {0} images below it; \
             make one of them with `qemu-img commit` or `qemu-img convert`"
    )]
    TooDeep(usize),
    /// An image that is below itself.
    #[error("it is one of the backing files of itself")]
    Cycle,
    /// The format's reader refuses it, or it cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}
