//! What the storage under an image can do, as the kernel says.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use rustix::fs::{FallocateFlags, fallocate, fstatfs, ioctl_blksszget, major, minor};

use super::Qcow2;
use crate::ioctl::can_secure_erase;
use crate::request::SECTOR_SIZE;

/// What a qcow2 image is best read and written in: the page size of most hosts.
const QCOW2_BLOCK: u32 = 4096;

/// File systems in memory: tmpfs, ramfs, hugetlbfs (linux/magic.h).
const IN_MEMORY: [u32; 3] = [0x0102_1994, 0x8584_58f6, 0x9584_58f6];

/// Whether reads and writes of a file never wait for a device.
pub(super) fn is_in_memory(file: &File) -> bool {
    fstatfs(file).is_ok_and(|system| IN_MEMORY.contains(&(system.f_type as u32)))
}

/// What can be done to the storage, apart from reads, writes and flushes. Sizes are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// The storage is a block device, so that what concerns its content is up to ioctls.
    pub block_device: bool,
    /// The smallest unit that the storage takes.
    pub logical_block: u32,
    /// The smallest unit that it writes without reading something first.
    pub physical_block: u32,
    /// How far behind the start of a physical block the disk begins.
    pub alignment_offset: u32,
    /// The smallest transfer that is not slow.
    pub min_io: u32,
    /// What transfers are best a multiple of; 0 when that is not known.
    pub opt_io: u32,
    /// The unit in which space is given back; `None` when none can be.
    pub discard: Option<u32>,
    /// Ranges can be zeroed without moving data.
    pub zero: bool,
    /// Ranges can be erased beyond recovery, in units of the physical block.
    pub secure_erase: bool,
    /// Writes have to be sequential.
    pub zoned: bool,
}

impl Default for Abilities {
    /// Reads and writes of single sectors, no more.
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
    /// Asks for those of an open image of `size` bytes. Changes nothing.
    pub fn probe(file: &File, size: u64) -> io::Result<Self> {
        let metadata = file.metadata()?;
        match metadata.file_type().is_block_device() {
            true => Self::of_block_device(file, &metadata),
            false => Ok(Self::of_file(file, &metadata, size)),
        }
    }

    /// Those of a qcow2 image, whatever is below it.
    pub fn of_qcow2(qcow2: &Qcow2) -> Self {
        Self {
            physical_block: QCOW2_BLOCK,
            min_io: QCOW2_BLOCK,
            opt_io: qcow2.cluster_size(),
            discard: qcow2.can_zero().then_some(qcow2.cluster_size()),
            zero: qcow2.can_zero(),
            ..Self::default()
        }
    }

    fn of_file(file: &File, metadata: &Metadata, size: u64) -> Self {
        let block = u32::try_from(metadata.blksize()).unwrap_or(0);
        // Some network file systems name sizes that are no block's.
        let block = match block.is_power_of_two() && (512..=65536).contains(&block) {
            true => block,
            false => 4096,
        };
        // Behind the end there is nothing to be punched, so this changes nothing where it works.
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
            // Where the device cannot do it, the kernel writes zeroes itself.
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
        // A partition has the queue of its disk, which is the folder above.
        let queue = match device.join("partition").exists() {
            true => device.join("../queue"),
            false => device.join("queue"),
        };
        Self { device, queue }
    }

    fn text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.queue.join(name)).ok()
    }

    /// A limit that does not fit is as good as none.
    fn number(&self, name: &str) -> Option<u32> {
        let number = self.text(name)?.trim().parse::<u64>().ok()?;
        Some(u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// -1 stands for a device whose alignment is no good at all.
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
    fn a_probe_leaves_the_file_alone() {
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [7; 8192]).unwrap();
        let abilities = Abilities::probe(file.as_file(), 8192).unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), [7; 8192]);
        assert!(!abilities.block_device && !abilities.secure_erase && !abilities.zoned);
        assert_eq!(abilities.logical_block, 512);
        assert_eq!(abilities.discard.is_some(), abilities.zero);
    }

    #[test]
    fn a_file_that_cannot_be_written_can_do_no_more() {
        let file = NamedTempFile::new().unwrap();
        let file = File::open(file.path()).unwrap();
        let abilities = Abilities::probe(&file, 0).unwrap();
        assert_eq!((abilities.discard, abilities.zero), (None, false));
    }
}
