//! Tests of host block devices as images.

use super::features::ranges;
use super::*;
use crate::ImageError;
use crate::loop_device::LoopDevice;
use tempfile::NamedTempFile;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD as DISCARD, VIRTIO_BLK_T_WRITE_ZEROES as WRITE_ZEROES,
};

const SIZE: u64 = 1 << 20;

struct Disk {
    /// The loop device. This field comes before `file`, so that the loop device is detached before
    /// the file is deleted.
    device: LoopDevice,
    file: NamedTempFile,
}

impl Disk {
    fn new(sector: u32) -> Option<Self> {
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), contents(0, SIZE)).unwrap();
        let device = LoopDevice::new(file.path(), sector)?;
        Some(Self { device, file })
    }

    fn open(&self, options: OpenOptions) -> Result<Image, ImageError> {
        Image::open(&self.device.path, options)
    }

    fn file(&self) -> Vec<u8> {
        std::fs::read(self.file.path()).unwrap()
    }

    /// Runs a test with each engine.
    fn serve(&self, options: OpenOptions, test: impl Fn(&Arc<BlockDevice>, &mut Driver)) {
        for engine in ENGINES {
            let image = self.open(options.clone()).unwrap();
            let device = driver::device(image, engine);
            let mut driver = Driver::new(FEATURES);
            driver.start(&device);
            test(&device, &mut driver);
            driver.stop();
        }
    }
}

#[test]
fn an_image_has_the_abilities_that_the_kernel_reports_for_its_device() {
    let Some(disk) = Disk::new(4096) else { return };
    let image = disk.open(OpenOptions::unlocked()).unwrap();
    assert_eq!(image.sectors(), SIZE / 512);
    assert_eq!(image.block_size(), 4096);
    let abilities = image.abilities();
    assert!(abilities.block_device && abilities.zero && !abilities.zoned);
    assert!(!abilities.secure_erase, "a loop device has none");
    assert!(abilities.discard.is_some_and(|unit| unit >= 4096));
    drop(image);
    let small = disk.open(OpenOptions {
        block_size: Some(512),
        ..OpenOptions::unlocked()
    });
    let error = small.unwrap_err();
    assert!(matches!(
        error,
        ImageError::SmallBlocks { logical: 4096, .. }
    ));
}

#[test]
fn a_block_device_reads_writes_zeroes_and_discards() {
    let Some(disk) = Disk::new(512) else { return };
    disk.serve(OpenOptions::unlocked(), |device, driver| {
        let features = device.features();
        assert_ne!(features & (1 << VIRTIO_BLK_F_DISCARD), 0);
        assert_eq!(features & (1 << VIRTIO_BLK_F_SECURE_ERASE), 0);
        let write = driver.run(&request(WRITE, 3, &[0x77; 1024]), 1, &[]);
        assert_eq!(write.status, OK);
        for flags in [0, 1] {
            let list = ranges(&[(64, 64, flags), (256, 1, flags)]);
            let zeroes = driver.run(&request(WRITE_ZEROES, 0, &list), 1, &[]);
            assert_eq!(zeroes.status, OK);
            let read = driver.run(&request(READ, 256, &[]), 1025, &[]);
            assert_eq!(read.data[..512], [0; 512]);
            assert_eq!(read.data[512..], contents(257 * 512, 512));
        }
        let list = ranges(&[(1024, 512, 0), (1600, 8, 0)]);
        let discard = driver.run(&request(DISCARD, 0, &list), 1, &[]);
        assert_eq!(discard.status, OK);
        let flush = driver.run(&request(FLUSH, 0, &[]), 1, &[]);
        assert_eq!(flush.status, OK);
        assert_eq!(disk.file()[3 * 512..5 * 512], [0x77; 1024]);
        assert_eq!(disk.file().len() as u64, SIZE);
        // A loop device turns discarded ranges into holes of its file, which read as zeroes.
        assert_eq!(disk.file()[512 << 10..768 << 10], [0; 256 << 10]);
    });
}

#[test]
fn ranges_to_change_on_a_block_device_have_to_be_whole_blocks() {
    let Some(disk) = Disk::new(4096) else { return };
    disk.serve(OpenOptions::unlocked(), |_, driver| {
        for kind in [DISCARD, WRITE_ZEROES] {
            for (sector, sectors) in [(1, 8), (8, 7)] {
                let list = ranges(&[(sector, sectors, 0)]);
                let answer = driver.run(&request(kind, 0, &list), 1, &[]);
                assert_eq!(answer.status, IOERR);
            }
        }
        // Through the page cache, a transfer may be smaller than a block of the block device.
        let write = driver.run(&request(WRITE, 9, &[0x78; 512]), 1, &[]);
        assert_eq!(write.status, OK);
        let read = driver.run(&request(READ, 9, &[]), 1025, &[]);
        assert_eq!(read.data[..512], [0x78; 512]);
        assert_eq!(read.data[512..], contents(10 * 512, 512));
    });
}
