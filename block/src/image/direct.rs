//! Direct I/O, which bypasses the page cache and needs aligned memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, StatxFlags, statx};

use super::abilities::Abilities;
use super::file::check_same;

/// The image, opened a second time for direct I/O. Requests that are not aligned go through the
/// page cache. The kernel keeps direct I/O and the page cache consistent.
#[derive(Debug)]
pub(crate) struct Direct {
    pub file: File,
    pub alignment: Alignment,
}

/// The alignments in bytes that direct I/O needs. Both alignments are powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alignment {
    /// Alignment of addresses in memory.
    pub memory: u32,
    /// Alignment of offsets in the image and of all lengths.
    pub image: u32,
}

impl Direct {
    /// Opens the image at `path` again. `cached` is the file that was opened before, without direct
    /// I/O.
    ///
    /// # Errors
    ///
    /// When the file system does not support direct I/O, or when another file has replaced the
    /// image at `path`.
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
        check_same(cached, &file)?;
        let alignment = alignment(&file, abilities)?;
        Ok(Self { file, alignment })
    }
}

fn alignment(file: &File, abilities: &Abilities) -> io::Result<Alignment> {
    let status = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)?;
    if status.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        // Linux before 6.1 and some file systems do not report the alignment. The alignment in this
        // value is sufficient for all of these kernels and file systems.
        return Ok(Alignment {
            memory: abilities.logical_block.max(512),
            image: if abilities.block_device {
                abilities.logical_block
            } else {
                4096
            },
        });
    }
    let (memory, image) = (status.stx_dio_mem_align, status.stx_dio_offset_align);
    if memory.is_power_of_two() && image.is_power_of_two() && image <= 65536 {
        Ok(Alignment { memory, image })
    } else {
        // Some file systems accept O_DIRECT but do not support direct I/O. They report 0 for both
        // alignments.
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::NamedTempFile;

    #[test]
    fn opening_another_file_in_place_of_the_image_fails() {
        let (image, other) = (NamedTempFile::new().unwrap(), NamedTempFile::new().unwrap());
        let abilities = Abilities::default();
        let direct = Direct::open(other.path(), image.as_file(), false, &abilities);
        assert!(direct.is_err());
        // With the image's own file, `open` fails only if the file system does not support direct
        // I/O.
        match Direct::open(image.path(), image.as_file(), false, &abilities) {
            Ok(direct) => assert!(direct.alignment.image.is_power_of_two()),
            Err(error) => println!("no direct I/O: {error}"),
        }
    }
}
