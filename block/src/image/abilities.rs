//! The abilities of the storage that holds an image.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use rustix::fs::{FallocateFlags, fallocate, fstatfs, ioctl_blksszget, major, minor};

use crate::ioctl::can_secure_erase;
use crate::operation::SECTOR_SIZE;

/// The magic numbers of file systems in memory: tmpfs, ramfs and hugetlbfs (linux/magic.h).
const IN_MEMORY: [u32; 3] = [0x0102_1994, 0x8584_58f6, 0x9584_58f6];

/// Whether a file is on a file system in memory, so that reads and writes never wait for a device.
pub(super) fn is_in_memory(file: &File) -> bool {
    fstatfs(file).is_ok_and(|system| IN_MEMORY.contains(&(system.f_type as u32)))
}

/// The abilities of storage besides reads, writes and flushes. Sizes are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// Whether the storage is a block device, which uses ioctls to discard and erase its content.
    pub block_device: bool,
    /// The smallest unit in bytes that the storage reads and writes.
    pub logical_block: u32,
    /// The smallest unit in bytes that the storage writes without reading first.
    pub physical_block: u32,
    /// The distance in bytes from the start of the disk to its first block that is aligned to a
    /// physical block.
    pub alignment_offset: u32,
    /// The smallest efficient transfer size in bytes.
    pub min_io: u32,
    /// The best transfer size in bytes, or 0 if the size is unknown. Multiples of this size are
    /// equally efficient.
    pub opt_io: u32,
    /// The unit in bytes in which space can be freed. `None` if the storage cannot free space.
    pub discard: Option<u32>,
    /// Whether the storage can zero ranges itself, so that this process need not write zeroes.
    pub zero: bool,
    /// Whether the storage can erase ranges beyond recovery. The ranges consist of whole physical
    /// blocks.
    pub secure_erase: bool,
    /// Whether the storage takes only sequential writes.
    pub zoned: bool,
}

impl Default for Abilities {
    /// Storage that can only read, write and flush, with blocks of one sector.
    fn default() -> Self {
        Self {
            block_device: false,
            logical_block: SECTOR_SIZE as u32,
            physical_block: SECTOR_SIZE as u32,
            alignment_offset: 0,
            min_io: SECTOR_SIZE as u32,
            opt_io: 0,
            discard: None,
            zero: false,
            secure_erase: false,
            zoned: false,
        }
    }
}

impl Abilities {
    /// Asks the kernel for the abilities of an open raw image of `size` bytes. Changes nothing.
    pub fn probe(file: &File, size: u64) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if metadata.file_type().is_block_device() {
            Self::of_block_device(file, &metadata)
        } else {
            Ok(Self::of_file(file, &metadata, size))
        }
    }

    fn of_file(file: &File, metadata: &Metadata, size: u64) -> Self {
        let block = u32::try_from(metadata.blksize()).unwrap_or(0);
        // Some network file systems report a size that is not a valid block size.
        let plausible = block.is_power_of_two() && (512..=65536).contains(&block);
        let block = if plausible { block } else { 4096 };
        // The attempt to punch a hole behind the end of the file shows whether the file system
        // supports holes. It does not change the file.
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let holes = fallocate(file, mode, size, u64::from(block)).is_ok();
        Self {
            physical_block: block,
            min_io: block,
            discard: holes.then_some(block),
            zero: holes,
            ..Self::default()
        }
    }

    fn of_block_device(file: &File, metadata: &Metadata) -> io::Result<Self> {
        let logical_block = ioctl_blksszget(file)?;
        let limits = QueueLimits::of(metadata.rdev());
        let size = |name| limits.number(name).unwrap_or(0);
        let granularity = size("discard_granularity").max(logical_block);
        let discards = size("discard_max_bytes") > 0;
        Ok(Self {
            block_device: true,
            logical_block,
            physical_block: size("physical_block_size").max(logical_block),
            alignment_offset: limits.alignment_offset(),
            min_io: size("minimum_io_size").max(logical_block),
            opt_io: size("optimal_io_size"),
            discard: discards.then_some(granularity),
            // If the device cannot zero ranges, the kernel writes the zeroes itself.
            zero: true,
            secure_erase: can_secure_erase(file),
            zoned: limits
                .text("zoned")
                .is_some_and(|kind| kind.trim() == "host-managed"),
        })
    }
}

/// The limits of a block device's queue, in sysfs.
struct QueueLimits {
    device: PathBuf,
    queue: PathBuf,
}

impl QueueLimits {
    fn of(device: u64) -> Self {
        let name = format!("/sys/dev/block/{}:{}", major(device), minor(device));
        let device = PathBuf::from(name);
        // A partition uses the queue of its disk. In sysfs, the folder of the disk is the parent of
        // the folder of the partition.
        let is_partition = device.join("partition").exists();
        let queue = device.join(if is_partition { "../queue" } else { "queue" });
        Self { device, queue }
    }

    fn text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.queue.join(name)).ok()
    }

    /// The limit with this name. A number that does not fit in 32 bits becomes `u32::MAX`.
    fn number(&self, name: &str) -> Option<u32> {
        let number = self.text(name)?.trim().parse::<u64>().ok()?;
        Some(u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// The alignment offset in bytes. If the device is never aligned, the kernel reports -1, and
    /// the result is 0.
    fn alignment_offset(&self) -> u32 {
        let text = fs::read_to_string(self.device.join("alignment_offset"));
        text.ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::NamedTempFile;

    #[test]
    fn a_probe_does_not_change_the_file() {
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [7; 8192]).unwrap();
        let abilities = Abilities::probe(file.as_file(), 8192).unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), [7; 8192]);
        assert!(!abilities.block_device && !abilities.secure_erase && !abilities.zoned);
        assert_eq!(abilities.logical_block, 512);
        assert_eq!(abilities.discard.is_some(), abilities.zero);
    }

    #[test]
    fn a_file_that_cannot_be_written_can_neither_discard_nor_zero() {
        let file = NamedTempFile::new().unwrap();
        let file = File::open(file.path()).unwrap();
        let abilities = Abilities::probe(&file, 0).unwrap();
        assert_eq!((abilities.discard, abilities.zero), (None, false));
    }
}
