//! Tests of discard, write zeroes, secure erase and the write cache.

use super::*;
use crate::Cache;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD as DISCARD, VIRTIO_BLK_T_SECURE_ERASE as SECURE_ERASE,
    VIRTIO_BLK_T_WRITE_ZEROES as WRITE_ZEROES,
};

/// The data of a request with these ranges. Each range is (first sector, number of sectors, flags).
pub fn ranges(ranges: &[(u64, u32, u32)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (sector, sectors, flags) in ranges {
        bytes.extend_from_slice(&sector.to_le_bytes());
        bytes.extend_from_slice(&sectors.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
    }
    bytes
}

fn blocks(path: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).unwrap().blocks()
}

/// Runs a test with each engine, on a device with these options.
fn with_options(options: OpenOptions, test: impl Fn(&Rig, &mut Driver)) {
    for engine in ENGINES {
        let mut rig = Rig::new(engine, 1, false);
        let image = Image::open(&rig.path, options.clone()).unwrap();
        rig.device = driver::device(image, engine);
        let mut driver = Driver::new(FEATURES);
        driver.start(&rig.device);
        test(&rig, &mut driver);
        driver.stop();
    }
}

#[test]
fn a_request_zeroes_all_of_its_ranges() {
    with_each_engine(|rig, driver| {
        let mut expected = contents(0, SECTORS * SECTOR_SIZE);
        for flags in [0, 1] {
            let first = 16 + 64 * u64::from(flags);
            let list = ranges(&[(first, 16, flags), (first + 17, 1, flags), (0, 0, 0)]);
            let answer = driver.run(&request(WRITE_ZEROES, 0, &list), 1, &[7, 40]);
            assert_eq!((answer.status, answer.written), (OK, 1));
            let first = first as usize * 512;
            expected[first..first + 16 * 512].fill(0);
            expected[first + 17 * 512..][..512].fill(0);
            assert!(rig.image() == expected);
        }
        let read = driver.run(&request(READ, 33, &[]), 513, &[]);
        assert_eq!((read.status, read.data), (OK, vec![0; 512]));
    });
}

#[test]
fn discards_and_unmapped_zeroes_free_space() {
    for (kind, flags) in [(DISCARD, 0), (WRITE_ZEROES, 1)] {
        with_each_engine(|rig, driver| {
            File::open(&rig.path).unwrap().sync_all().unwrap();
            let before = blocks(&rig.path);
            let list = ranges(&[(0, 128, flags), (192, 64, flags)]);
            let answer = driver.run(&request(kind, 0, &list), 1, &[]);
            assert_eq!(answer.status, OK);
            assert!(blocks(&rig.path) <= before - 128, "{before}");
            assert_eq!(rig.image().len() as u64, SECTORS * SECTOR_SIZE);
            assert_eq!(
                rig.image()[64 << 10..96 << 10],
                contents(64 << 10, 32 << 10)
            );
        });
    }
}

#[test]
fn without_discard_zeroes_keep_their_space() {
    let options = OpenOptions {
        discard: false,
        ..OpenOptions::unlocked()
    };
    with_options(options, |rig, driver| {
        assert_eq!(rig.device.features() & (1 << VIRTIO_BLK_F_DISCARD), 0);
        let mut may_unmap = [9];
        rig.device.read_config(56, &mut may_unmap);
        assert_eq!(may_unmap, [0]);
        File::open(&rig.path).unwrap().sync_all().unwrap();
        let before = blocks(&rig.path);
        let list = ranges(&[(0, 256, 1)]);
        let zeroes = driver.run(&request(WRITE_ZEROES, 0, &list), 1, &[]);
        assert_eq!(zeroes.status, OK);
        assert!(blocks(&rig.path) >= before);
        assert!(rig.image().iter().all(|&byte| byte == 0));
        let list = ranges(&[(0, 256, 0)]);
        let discard = driver.run(&request(DISCARD, 0, &list), 1, &[]);
        assert_eq!(discard.status, UNSUPP);
    });
}

#[test]
fn a_request_with_one_bad_range_is_refused_and_changes_nothing() {
    with_each_engine(|rig, driver| {
        let one = (0, 1, 0);
        for (status, kind, list, input) in [
            (UNSUPP, DISCARD, ranges(&[one, (1, 1, 1)]), 1),
            (UNSUPP, WRITE_ZEROES, ranges(&[one, (1, 1, 2)]), 1),
            (UNSUPP, SECURE_ERASE, ranges(&[one]), 1),
            (IOERR, WRITE_ZEROES, ranges(&[one, (SECTORS, 1, 0)]), 1),
            (IOERR, DISCARD, ranges(&[one, (SECTORS - 1, 2, 0)]), 1),
            (IOERR, DISCARD, ranges(&[one, (u64::MAX, u32::MAX, 0)]), 1),
            (IOERR, DISCARD, ranges(&[one; 33]), 1),
            (IOERR, DISCARD, ranges(&[one])[..15].to_vec(), 1),
            (IOERR, WRITE_ZEROES, Vec::new(), 1),
            (IOERR, WRITE_ZEROES, ranges(&[one]), 513),
        ] {
            let answer = driver.run(&request(kind, 0, &list), input, &[]);
            assert_eq!(
                (answer.status, answer.written),
                (status, 1),
                "{kind} {list:?}"
            );
        }
        assert!(rig.image() == contents(0, SECTORS * SECTOR_SIZE));
    });
}

#[test]
fn storage_that_cannot_erase_fails_the_request_and_the_queue_goes_on() {
    for engine in ENGINES {
        let rig = Rig::new(engine, 1, false);
        let file = File::options().read(true).write(true).open(&rig.path);
        let abilities = Abilities {
            block_device: true,
            secure_erase: true,
            discard: Some(4096),
            physical_block: 4096,
            ..Abilities::default()
        };
        let image = Image::from_file(file.unwrap(), SECTORS * SECTOR_SIZE, abilities);
        let device = driver::device(image, engine);
        assert_ne!(device.features() & (1 << VIRTIO_BLK_F_SECURE_ERASE), 0);
        let mut alignment = [0; 4];
        device.read_config(68, &mut alignment);
        assert_eq!(u32::from_le_bytes(alignment), 8);
        let mut driver = Driver::new(FEATURES);
        driver.start(&device);
        // The image is a regular file, which does not support the ioctls for discard and secure
        // erase.
        for kind in [SECURE_ERASE, DISCARD] {
            let list = ranges(&[(0, 8, 0)]);
            let answer = driver.run(&request(kind, 0, &list), 1, &[]);
            assert_eq!(answer.status, IOERR);
        }
        let read = driver.run(&request(READ, 0, &[]), 513, &[]);
        assert_eq!((read.status, read.data), (OK, contents(0, 512)));
        driver.stop();
    }
}

#[test]
fn the_driver_turns_its_write_cache_on_and_off() {
    with_each_engine(|rig, driver| {
        let writeback = || {
            let mut byte = [9];
            rig.device.read_config(32, &mut byte);
            byte[0]
        };
        assert_eq!(writeback(), 1);
        for mode in [0, 1, 0] {
            rig.device.write_config(32, &[mode]).unwrap();
            assert_eq!(writeback(), mode);
            let data = [mode + 3; 512];
            let write = driver.run(&request(WRITE, 1, &data), 1, &[]);
            assert_eq!(write.status, OK);
            assert_eq!(rig.image()[512..1024], data);
            let zeroes = driver.run(&request(WRITE_ZEROES, 0, &ranges(&[(1, 1, 0)])), 1, &[]);
            assert_eq!(zeroes.status, OK);
            assert_eq!(rig.image()[512..1024], [0; 512]);
        }
        assert!(rig.device.write_config(32, &[2]).is_err());
        assert_eq!(writeback(), 0);
    });
}

#[test]
fn each_cache_mode_has_its_feature_bit_and_first_state() {
    let wce = 1 << VIRTIO_BLK_F_CONFIG_WCE;
    for (cache, read_only, feature, byte) in [
        (Cache::Writeback, false, wce, 1),
        (Cache::Writethrough, false, wce, 0),
        (Cache::Unsafe, false, 0, 1),
        (Cache::Writeback, true, 0, 1),
    ] {
        let rig = Rig::new(EngineKind::Auto, 1, false);
        let options = OpenOptions {
            cache,
            read_only,
            ..OpenOptions::unlocked()
        };
        let image = Image::open(&rig.path, options).unwrap();
        let device = BlockDevice::new(Arc::new(image), Options::default()).unwrap();
        assert_eq!(device.features() & wce, feature, "{cache:?}");
        let mut writeback = [9];
        device.read_config(32, &mut writeback);
        assert_eq!(writeback, [byte], "{cache:?}");
        assert_eq!(device.write_config(32, &[1]).is_ok(), feature != 0);
    }
}

#[test]
fn only_a_driver_with_config_wce_turns_write_through_off() {
    let rig = Rig::new(EngineKind::Auto, 1, false);
    let options = OpenOptions {
        cache: Cache::Writethrough,
        ..OpenOptions::unlocked()
    };
    let image = Image::open(&rig.path, options).unwrap();
    let device = BlockDevice::new(Arc::new(image), Options::default()).unwrap();
    device.write_config(32, &[1]).unwrap();
    let wce = 1 << VIRTIO_BLK_F_CONFIG_WCE;
    let cache = &device.disk.cache;
    assert!(!cache.is_write_through(FEATURES | wce));
    assert!(cache.is_write_through(FEATURES));
    assert!(cache.is_write_through(wce));
}

#[test]
fn an_unsafe_cache_flushes_nothing() {
    for (cache, status) in [(Cache::Unsafe, OK), (Cache::Writeback, IOERR)] {
        // The file /dev/full cannot be flushed.
        let full = File::options().read(true).write(true).open("/dev/full");
        let size = SECTORS * SECTOR_SIZE;
        let image = Image::from_file(full.unwrap(), size, Abilities::default()).cached(cache);
        assert_eq!(image.sync().is_ok(), status == OK);
        let device = driver::device(image, EngineKind::Auto);
        let mut driver = Driver::new(FEATURES);
        driver.start(&device);
        let flush = driver.run(&request(FLUSH, 0, &[]), 1, &[]);
        assert_eq!(flush.status, status);
        driver.stop();
    }
}

#[test]
fn a_disk_may_have_blocks_of_4096_bytes() {
    let options = OpenOptions {
        block_size: Some(4096),
        ..OpenOptions::unlocked()
    };
    with_options(options, |rig, driver| {
        let mut space = [0; 12];
        rig.device.read_config(20, &mut space);
        assert_eq!(space[..4], 4096u32.to_le_bytes());
        // The physical block and the smallest transfer are one logical block, because most file
        // systems have blocks of 4096 bytes.
        assert_eq!(space[4..8], [0, 0, 1, 0]);
        // Requests still give their position in sectors of 512 bytes.
        let read = driver.run(&request(READ, 8, &[]), 4097, &[]);
        assert_eq!((read.status, read.data), (OK, contents(4096, 4096)));
    });
}
