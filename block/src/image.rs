//! Disk images: raw files and host block devices.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::request::{Limits, SECTOR_SIZE};

/// How to open an image.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// Never write to the image, and tell the driver so.
    pub read_only: bool,
}

/// A raw disk image: byte `n` of the disk is byte `n` of the file or block device.
///
/// Its size is taken when it is opened and never changed by anything done through it.
#[derive(Debug)]
pub struct Image {
    file: File,
    size: u64,
    read_only: bool,
}

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
    /// The last sector is not whole.
    #[error("disk image {} has {size} bytes, which is not a multiple of {SECTOR_SIZE}; \
             extend it with `truncate -s %{SECTOR_SIZE}`", path.display())]
    PartialSector {
        /// The image.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
}

impl Image {
    /// Opens the regular file or block device at `path`, which has to hold whole sectors.
    ///
    /// # Errors
    ///
    /// See [`ImageError`].
    pub fn open(path: impl AsRef<Path>, options: OpenOptions) -> Result<Self, ImageError> {
        let path = path.as_ref();
        // Looked at before it is opened, because opening a pipe waits for its other end.
        let metadata = fs::metadata(path).map_err(|error| open_error(path, error))?;
        check_kind(path, &metadata)?;
        let mut file = open_file(path, options)?;
        let size = size_of(&mut file).map_err(|error| open_error(path, error))?;
        check_size(path, size)?;
        Ok(Self {
            file,
            size,
            read_only: options.read_only,
        })
    }

    /// Size in sectors of [`SECTOR_SIZE`] bytes.
    pub fn sectors(&self) -> u64 {
        self.size / SECTOR_SIZE
    }

    /// True when nothing is ever written to it.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// Waits until everything written so far is on stable storage.
    ///
    /// # Errors
    ///
    /// Whatever the storage says; data may be lost then.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Any file as an image, for tests of storage that fails.
    #[cfg(test)]
    pub(crate) fn from_file(file: File, size: u64) -> Self {
        Self {
            file,
            size,
            read_only: false,
        }
    }

    /// What a request has to stay within.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            size: self.size,
            read_only: self.read_only,
        }
    }
}

impl AsFd for Image {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Image {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
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

fn check_size(path: &Path, size: u64) -> Result<(), ImageError> {
    match size % SECTOR_SIZE {
        _ if size == 0 => Err(ImageError::Empty(path.into())),
        0 => Ok(()),
        _ => Err(ImageError::PartialSector {
            path: path.into(),
            size,
        }),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use tempfile::TempDir;

    fn file(dir: &TempDir, size: u64) -> PathBuf {
        let path = dir.path().join("disk.img");
        File::create(&path).unwrap().set_len(size).unwrap();
        path
    }

    fn refusal(path: impl AsRef<Path>) -> ImageError {
        Image::open(path, OpenOptions::default()).unwrap_err()
    }

    #[test]
    fn opens_a_file_of_whole_sectors() {
        let dir = TempDir::new().unwrap();
        let path = file(&dir, 4096);
        let image = Image::open(&path, OpenOptions::default()).unwrap();
        assert_eq!(image.sectors(), 8);
        assert!(!image.read_only());
        image.sync().unwrap();
        assert_eq!(fs::metadata(path).unwrap().len(), 4096);
    }

    #[test]
    fn refuses_what_is_no_disk() {
        let dir = TempDir::new().unwrap();
        let socket = dir.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        let missing = dir.path().join("missing");
        assert!(matches!(refusal(missing), ImageError::Missing(_)));
        assert!(matches!(refusal(dir.path()), ImageError::Directory(_)));
        assert!(matches!(refusal(socket), ImageError::NotADisk(_)));
        assert!(matches!(refusal("/dev/null"), ImageError::NotADisk(_)));
    }

    #[test]
    fn refuses_sizes_that_are_not_whole_sectors() {
        let dir = TempDir::new().unwrap();
        assert!(matches!(refusal(file(&dir, 0)), ImageError::Empty(_)));
        for size in [1, 511, 513, 4095] {
            let error = refusal(file(&dir, size));
            assert!(
                matches!(error, ImageError::PartialSector { size: s, .. } if s == size),
                "{error}"
            );
        }
    }

    #[test]
    fn a_path_through_a_file_cannot_be_opened() {
        let dir = TempDir::new().unwrap();
        let path = file(&dir, 512).join("below");
        assert!(matches!(refusal(path), ImageError::Open { .. }));
    }

    #[test]
    fn a_running_program_is_readable_but_not_writable() {
        // ETXTBSY holds for root too, unlike permissions.
        let program = std::env::current_exe().unwrap();
        let error = refusal(&program);
        assert!(matches!(error, ImageError::NotWritable { .. }), "{error}");
        assert!(error.to_string().contains("--read-only"));
        let read_only = Image::open(program, OpenOptions { read_only: true });
        assert!(!matches!(read_only, Err(ImageError::Open { .. })));
    }

    #[test]
    #[ignore = "needs root and a free loop device"]
    fn opens_a_block_device() {
        use std::process::Command;
        let dir = TempDir::new().unwrap();
        let path = file(&dir, 3 << 20);
        let mut losetup = Command::new("losetup");
        let output = losetup.args(["--find", "--show"]).arg(path).output();
        let device = String::from_utf8(output.unwrap().stdout).unwrap();
        let device = device.trim();
        let image = Image::open(device, OpenOptions::default());
        let status = Command::new("losetup").args(["-d", device]).status();
        assert_eq!(image.unwrap().sectors(), (3 << 20) / 512);
        assert!(status.unwrap().success());
    }

    #[test]
    fn each_refusal_is_one_line() {
        let dir = TempDir::new().unwrap();
        for error in [
            refusal(dir.path()),
            refusal(file(&dir, 513)),
            refusal("/nowhere/disk.img"),
        ] {
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}
