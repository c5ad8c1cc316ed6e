//! The configuration space, `struct virtio_blk_config` (virtio 1.2, section 5.2.4).

use std::ops::Range;

use crate::Image;
use crate::image::Abilities;
use crate::operation::SECTOR_SIZE;
use crate::request::{MAX_RANGE_SECTORS, MAX_RANGES};

/// Length in bytes of the part of the configuration space that ends with the fields for secure
/// erase. Later fields read as zero.
const LEN: usize = 72;

const CAPACITY: usize = 0;
const SEG_MAX: usize = 12;
const BLK_SIZE: usize = 20;
const TOPOLOGY: usize = 24;
/// The byte that turns the write cache on or off. A driver may write only this byte, and only if
/// VIRTIO_BLK_F_CONFIG_WCE was offered.
pub(crate) const WRITEBACK: Range<usize> = 32..33;
const NUM_QUEUES: usize = 34;
const DISCARD: usize = 36;
const WRITE_ZEROES: usize = 48;
const MAY_UNMAP: usize = 56;
const SECURE_ERASE: usize = 60;

/// A limit on the speed of the disk lowers the maximum length of ranges, but not below this number
/// of sectors. With shorter ranges, drivers would send very many requests.
const LEAST_SECTORS: u32 = 2048;

/// The fields of the configuration space that the device fills in. All other fields are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    /// Size of the disk in sectors of [`SECTOR_SIZE`] bytes.
    pub capacity: u64,
    /// Maximum number of data segments in a request (VIRTIO_BLK_F_SEG_MAX).
    pub seg_max: u32,
    /// Size of a block in bytes (VIRTIO_BLK_F_BLK_SIZE).
    pub blk_size: u32,
    /// The sizes and alignments that are efficient on the storage (VIRTIO_BLK_F_TOPOLOGY).
    pub topology: Topology,
    /// Whether the write cache is on (VIRTIO_BLK_F_CONFIG_WCE).
    pub writeback: bool,
    /// Number of request queues (VIRTIO_BLK_F_MQ).
    pub num_queues: u16,
    /// The limits on the ranges of discard requests (VIRTIO_BLK_F_DISCARD).
    pub discard: RangeConfig,
    /// The limits on the ranges of write-zeroes requests (VIRTIO_BLK_F_WRITE_ZEROES).
    pub write_zeroes: RangeConfig,
    /// Whether the device may free the space of zeroed ranges.
    pub may_unmap: bool,
    /// The limits on ranges to erase (VIRTIO_BLK_F_SECURE_ERASE).
    pub secure_erase: RangeConfig,
}

/// The fields of `struct virtio_blk_topology` (virtio 1.2, section 5.2.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Topology {
    /// Base-2 logarithm of the number of logical blocks in a physical block.
    pub physical_block_exp: u8,
    /// Index of the first logical block that is aligned to a physical block.
    pub alignment_offset: u8,
    /// The smallest efficient transfer size, in logical blocks.
    pub min_io_size: u16,
    /// The best transfer size in logical blocks, or 0 if the size is unknown. Multiples of this
    /// size are equally efficient.
    pub opt_io_size: u32,
}

/// The limits on the ranges of one request type: discard, write zeroes or secure erase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeConfig {
    /// Maximum number of sectors in a range.
    pub max_sectors: u32,
    /// Maximum number of ranges in a request.
    pub max_ranges: u32,
    /// The best alignment of ranges, in sectors. The configuration space does not have this field
    /// for write zeroes.
    pub alignment: u32,
}

impl Config {
    /// The fields whose values depend only on the image. Other fields have their default values.
    pub fn of_image(image: &Image) -> Self {
        let (limits, abilities) = (image.limits(), image.abilities());
        Self {
            capacity: image.sectors(),
            blk_size: image.block_size(),
            topology: Topology::of(abilities, image.block_size()),
            discard: RangeConfig::of(limits.discard, abilities.discard.unwrap_or_default()),
            write_zeroes: RangeConfig::of(limits.write_zeroes, 0),
            may_unmap: limits.write_zeroes && limits.discard,
            secure_erase: RangeConfig::of(limits.secure_erase, abilities.physical_block),
            ..Self::default()
        }
    }

    /// The same fields, but with the limits on ranges lowered so that a request discards, zeroes or
    /// erases at most about `bytes` bytes.
    pub fn with_largest_change(self, bytes: u64) -> Self {
        Self {
            discard: self.discard.within(bytes),
            write_zeroes: self.write_zeroes.within(bytes),
            secure_erase: self.secure_erase.within(bytes),
            ..self
        }
    }

    /// Copies bytes of the configuration space to `data`, from `offset` on. Bytes past the end of
    /// the space read as zero.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        data.fill(0);
        let bytes = self.to_bytes();
        let rest = bytes.get(offset..).unwrap_or_default();
        let len = rest.len().min(data.len());
        data[..len].copy_from_slice(&rest[..len]);
    }

    fn to_bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(CAPACITY, &self.capacity.to_le_bytes());
        put(SEG_MAX, &self.seg_max.to_le_bytes());
        put(BLK_SIZE, &self.blk_size.to_le_bytes());
        put(TOPOLOGY, &[self.topology.physical_block_exp]);
        put(TOPOLOGY + 1, &[self.topology.alignment_offset]);
        put(TOPOLOGY + 2, &self.topology.min_io_size.to_le_bytes());
        put(TOPOLOGY + 4, &self.topology.opt_io_size.to_le_bytes());
        put(WRITEBACK.start, &[self.writeback.into()]);
        put(NUM_QUEUES, &self.num_queues.to_le_bytes());
        for (at, range) in [(DISCARD, self.discard), (SECURE_ERASE, self.secure_erase)] {
            put(at, &range.max_sectors.to_le_bytes());
            put(at + 4, &range.max_ranges.to_le_bytes());
            put(at + 8, &range.alignment.to_le_bytes());
        }
        put(WRITE_ZEROES, &self.write_zeroes.max_sectors.to_le_bytes());
        put(
            WRITE_ZEROES + 4,
            &self.write_zeroes.max_ranges.to_le_bytes(),
        );
        put(MAY_UNMAP, &[self.may_unmap.into()]);
        bytes
    }
}

impl Topology {
    /// The topology of storage with the given abilities, for logical blocks of `block` bytes. A
    /// value that is too large for its field becomes 0. To the driver, 0 means that the value is
    /// unknown.
    fn of(abilities: &Abilities, block: u32) -> Self {
        let physical_blocks = (abilities.physical_block / block).max(1);
        Self {
            physical_block_exp: physical_blocks.ilog2() as u8,
            alignment_offset: u8::try_from(abilities.alignment_offset / block).unwrap_or(0),
            min_io_size: u16::try_from(abilities.min_io / block).unwrap_or(0),
            opt_io_size: abilities.opt_io / block,
        }
    }
}

impl RangeConfig {
    /// The limits of a request type whose ranges are best aligned to `unit` bytes. All limits are 0
    /// if the device does not offer the request type.
    fn of(offered: bool, unit: u32) -> Self {
        if !offered {
            return Self::default();
        }
        Self {
            max_sectors: MAX_RANGE_SECTORS,
            max_ranges: MAX_RANGES,
            alignment: unit / SECTOR_SIZE as u32,
        }
    }

    /// The same limits, but lowered so that a request has at most `bytes` bytes. First, `bytes` is
    /// raised to at least [`LEAST_SECTORS`] sectors and at least one unit of alignment.
    fn within(self, bytes: u64) -> Self {
        let all = u64::from(self.max_sectors) * u64::from(self.max_ranges);
        let sectors = (bytes / SECTOR_SIZE).max(LEAST_SECTORS.max(self.alignment).into());
        if all <= sectors {
            return self;
        }
        // The cast loses nothing, because `sectors` is less than `all`, and `all` fits in 32 bits.
        let sectors = (sectors as u32).min(self.max_sectors);
        Self {
            max_sectors: sectors - sectors % self.alignment.max(1),
            max_ranges: 1,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;
    use virtio_bindings::virtio_blk::virtio_blk_config;

    const CONFIG: Config = Config {
        capacity: 0x0102_0304_0506_0708,
        seg_max: 0x1112_1314,
        blk_size: 512,
        topology: Topology {
            physical_block_exp: 3,
            alignment_offset: 4,
            min_io_size: 0x506,
            opt_io_size: 0x0708_090a,
        },
        writeback: true,
        num_queues: 0x2122,
        discard: RangeConfig {
            max_sectors: 0x31,
            max_ranges: 0x32,
            alignment: 0x33,
        },
        write_zeroes: RangeConfig {
            max_sectors: 0x41,
            max_ranges: 0x42,
            alignment: 0x43,
        },
        may_unmap: true,
        secure_erase: RangeConfig {
            max_sectors: 0x51,
            max_ranges: 0x52,
            alignment: 0x53,
        },
    };

    #[test]
    fn a_limit_on_changes_makes_ranges_short_but_not_very_short() {
        let config = Config {
            discard: RangeConfig::of(true, 3 << 20),
            write_zeroes: RangeConfig::of(true, 0),
            ..CONFIG
        };
        let lengths = |bytes| {
            let limited = config.with_largest_change(bytes);
            [limited.discard, limited.write_zeroes].map(|range| range.max_sectors)
        };
        assert_eq!(config.with_largest_change(u64::MAX), config);
        assert_eq!(lengths(16 << 20), [30 << 10, 32 << 10]);
        assert_eq!(lengths(1), [6 << 10, 2 << 10]);
        assert_eq!(lengths(5 << 30), [0x3f_f000, MAX_RANGE_SECTORS]);
        let nothing = RangeConfig::of(false, 4096);
        assert_eq!(nothing.within(1), nothing);
        assert_eq!(config.with_largest_change(5 << 30).discard.max_ranges, 1);
    }

    #[test]
    fn each_field_has_the_offset_of_the_kernel_header() {
        for (ours, header) in [
            (CAPACITY, offset_of!(virtio_blk_config, capacity)),
            (SEG_MAX, offset_of!(virtio_blk_config, seg_max)),
            (BLK_SIZE, offset_of!(virtio_blk_config, blk_size)),
            (TOPOLOGY, offset_of!(virtio_blk_config, physical_block_exp)),
            (TOPOLOGY + 4, offset_of!(virtio_blk_config, opt_io_size)),
            (WRITEBACK.start, offset_of!(virtio_blk_config, wce)),
            (NUM_QUEUES, offset_of!(virtio_blk_config, num_queues)),
            (DISCARD, offset_of!(virtio_blk_config, max_discard_sectors)),
            (
                WRITE_ZEROES,
                offset_of!(virtio_blk_config, max_write_zeroes_sectors),
            ),
            (
                MAY_UNMAP,
                offset_of!(virtio_blk_config, write_zeroes_may_unmap),
            ),
            (
                SECURE_ERASE,
                offset_of!(virtio_blk_config, max_secure_erase_sectors),
            ),
        ] {
            assert_eq!(ours, header);
        }
    }

    #[test]
    fn values_have_the_order_and_widths_of_the_specification() {
        let mut bytes = [0xff; 72];
        CONFIG.read(0, &mut bytes);
        let words: Vec<_> = bytes[20..]
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            .collect();
        let expected = [
            512,
            0x0506_0403,
            0x0708_090a,
            0x2122_0001,
            0x31,
            0x32,
            0x33,
            0x41,
            0x42,
            1,
            0x51,
            0x52,
            0x53,
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn fields_read_as_little_endian_at_any_offset() {
        let mut data = [0xff; 10];
        CONFIG.read(1, &mut data);
        assert_eq!(data, [7, 6, 5, 4, 3, 2, 1, 0, 0, 0]);
        let mut blk_size = [0xff; 4];
        CONFIG.read(20, &mut blk_size);
        assert_eq!(blk_size, [0, 2, 0, 0]);
    }

    #[test]
    fn bytes_past_the_end_read_as_zero() {
        let mut data = [0xff; 256];
        CONFIG.read(0, &mut data);
        assert!(data[LEN..].iter().all(|&byte| byte == 0));
        for offset in [LEN, LEN + 1, usize::MAX] {
            data.fill(0xff);
            CONFIG.read(offset, &mut data);
            assert!(data.iter().all(|&byte| byte == 0), "{offset}");
        }
    }
}
