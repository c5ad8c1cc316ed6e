//! Direct I/O: past the page cache, from and to memory that is aligned.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, StatxFlags, statx};

use super::Abilities;
use super::open::same_file;

/// The image opened a second time, for direct I/O. What is not aligned for that goes through the
/// page cache, with which the kernel keeps direct I/O consistent.
#[derive(Debug)]
pub(crate) struct Direct {
    pub file: File,
    pub alignment: Alignment,
}

/// What direct I/O has to be aligned to, in bytes: powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alignment {
    /// Of addresses in memory.
    pub memory: u32,
    /// Of offsets in the image, and of all lengths.
    pub image: u32,
}

impl Direct {
    /// Opens the image at `path` once more, which was opened as `cached` before.
    ///
    /// # Errors
    ///
    /// When the file system has no direct I/O, or the path names another file by now.
    pub fn open(
        path: &Path,
        cached: &File,
        read_only: bool,
        abilities: &Abilities,
    ) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(!read_only)
            .custom_flags(libc::O_DIRECT)
            .open(path)?;
        same_file(cached, &file)?;
        let alignment = alignment(&file, abilities)?;
        Ok(Self { file, alignment })
    }
}

fn alignment(file: &File, abilities: &Abilities) -> io::Result<Alignment> {
    let status = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)?;
    if status.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        // Linux before 6.1, or a file system that does not say: what all can do.
        return Ok(Alignment {
            memory: abilities.logical_block.max(512),
            image: match abilities.block_device {
                true => abilities.logical_block,
                false => 4096,
            },
        });
    }
    let (memory, image) = (status.stx_dio_mem_align, status.stx_dio_offset_align);
    match memory.is_power_of_two() && image.is_power_of_two() && image <= 65536 {
        true => Ok(Alignment { memory, image }),
        // Both are 0 where there is no direct I/O although the flag is taken.
        false => Err(io::ErrorKind::Unsupported.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::NamedTempFile;

    #[test]
    fn another_file_is_not_taken_for_the_image() {
        let (image, other) = (NamedTempFile::new().unwrap(), NamedTempFile::new().unwrap());
        let abilities = Abilities::default();
        let direct = Direct::open(other.path(), image.as_file(), false, &abilities);
        assert!(direct.is_err());
        // What has no direct I/O says so, and nothing else goes wrong.
        match Direct::open(image.path(), image.as_file(), false, &abilities) {
            Ok(direct) => assert!(direct.alignment.image.is_power_of_two()),
            Err(error) => println!("no direct I/O: {error}"),
        }
    }
}
