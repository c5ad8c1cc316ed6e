//! The configuration space, `struct virtio_blk_config` (virtio 1.2, section 5.2.4).

use crate::request::SECTOR_SIZE;

/// Up to and including `write_zeroes_may_unmap` and its padding; all that follows reads as zero too.
const LEN: usize = 60;

const CAPACITY: usize = 0;
const SEG_MAX: usize = 12;
const BLK_SIZE: usize = 20;
const NUM_QUEUES: usize = 34;

/// The fields that some offered feature gives a meaning; all others are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// Size of the disk in sectors of 512 bytes, whatever the block size.
    pub capacity: u64,
    /// The most data segments in a request (VIRTIO_BLK_F_SEG_MAX).
    pub seg_max: u32,
    /// Number of request queues (VIRTIO_BLK_F_MQ).
    pub num_queues: u16,
}

impl Config {
    /// Copies the space from `offset` on; what is past its end reads as zero.
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
        put(BLK_SIZE, &(SECTOR_SIZE as u32).to_le_bytes());
        put(NUM_QUEUES, &self.num_queues.to_le_bytes());
        bytes
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
        num_queues: 0x2122,
    };

    #[test]
    fn fields_are_where_the_header_has_them() {
        assert_eq!(CAPACITY, offset_of!(virtio_blk_config, capacity));
        assert_eq!(SEG_MAX, offset_of!(virtio_blk_config, seg_max));
        assert_eq!(BLK_SIZE, offset_of!(virtio_blk_config, blk_size));
        assert_eq!(NUM_QUEUES, offset_of!(virtio_blk_config, num_queues));
    }

    #[test]
    fn reads_little_endian_at_any_offset() {
        let mut data = [0xff; 10];
        CONFIG.read(1, &mut data);
        assert_eq!(data, [7, 6, 5, 4, 3, 2, 1, 0, 0, 0]);
        let mut blk_size = [0xff; 4];
        CONFIG.read(20, &mut blk_size);
        assert_eq!(blk_size, [0, 2, 0, 0]);
    }

    #[test]
    fn past_the_end_is_zero() {
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
