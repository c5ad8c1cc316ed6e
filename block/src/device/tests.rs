use super::*;
use crate::OpenOptions;
use crate::image::Abilities;
use crate::operation::SECTOR_SIZE;
use std::fs::File;
use std::time::{Duration, Instant};
use virtio::queue::{IN_ORDER, PACKED};
use virtio::test_utils::{anonymous_file, memory};
use virtio::{GuestMemory, Notifier, Region, StartError, Vring};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_FLUSH as FLUSH, VIRTIO_BLK_T_GET_ID as GET_ID, VIRTIO_BLK_T_IN as READ,
    VIRTIO_BLK_T_OUT as WRITE,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::{Bytes, GuestAddress};

mod block_devices;
mod direct;
mod driver;
mod failures;
mod features;
mod kicks;
mod limits;
mod model;
mod ring;

use driver::{Answer, Driver, MEMORY_LEN, RING_SIZE, Rig, SECTORS, UNTOUCHED, contents, request};

const OK: Option<u8> = Some(0);
const IOERR: Option<u8> = Some(1);
const UNSUPP: Option<u8> = Some(2);

/// The features that a usual driver negotiates.
const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_BLK_F_FLUSH;

const ENGINES: [EngineKind; 2] = [EngineKind::Auto, EngineKind::Threads];

/// Each engine with each layout of the vring. The number is the feature bit of the layout, or 0 for
/// a split vring.
fn ways() -> impl Iterator<Item = (EngineKind, u64)> {
    ENGINES
        .into_iter()
        .flat_map(|engine| [(engine, 0), (engine, PACKED)])
}

/// Runs a test with each engine.
fn with_each_engine(test: impl Fn(&Rig, &mut Driver)) {
    for engine in ENGINES {
        let rig = Rig::new(engine, 1, false);
        let mut driver = Driver::new(FEATURES);
        driver.start(&rig.device);
        test(&rig, &mut driver);
        driver.stop();
    }
}

#[test]
fn features_depend_on_the_queues_and_the_image() {
    let common = 1 << VIRTIO_BLK_F_FLUSH
        | 1 << VIRTIO_BLK_F_SEG_MAX
        | 1 << VIRTIO_BLK_F_BLK_SIZE
        | 1 << VIRTIO_BLK_F_TOPOLOGY;
    let changes =
        1 << VIRTIO_BLK_F_CONFIG_WCE | 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES;
    let features = |queues, read_only| {
        let rig = Rig::new(EngineKind::Auto, queues, read_only);
        rig.device.features()
    };
    assert_eq!(features(1, false), common | changes);
    assert_eq!(features(1, true), common | 1 << VIRTIO_BLK_F_RO);
    assert_eq!(features(2, false), common | changes | 1 << VIRTIO_BLK_F_MQ);
}

#[test]
fn the_configuration_space_has_the_size_and_limits_of_the_disk() {
    let rig = Rig::new(EngineKind::Auto, 3, false);
    let mut space = [0xff; 64];
    rig.device.read_config(0, &mut space);
    let mut expected = [0; 64];
    expected[..8].copy_from_slice(&SECTORS.to_le_bytes());
    expected[12..16].copy_from_slice(&62u32.to_le_bytes());
    expected[20..24].copy_from_slice(&512u32.to_le_bytes());
    expected[32] = 1;
    expected[34..36].copy_from_slice(&3u16.to_le_bytes());
    // Bytes 24 to 31 are not compared, because they depend on the file system of the image.
    assert_eq!(space[..24], expected[..24]);
    assert_eq!(space[32..36], expected[32..36]);
    assert_eq!(rig.device.queue_count(), 3);
}

#[test]
fn only_the_write_cache_byte_of_the_configuration_space_is_writable() {
    let rig = Rig::new(EngineKind::Auto, 1, false);
    for (offset, len) in [(0, 8), (31, 2), (32, 2), (33, 1), (32, 0), (usize::MAX, 4)] {
        let error = rig.device.write_config(offset, &vec![0; len]).unwrap_err();
        assert_eq!(error.offset, offset);
    }
}

#[test]
fn options_out_of_range_are_refused() {
    let rig = Rig::new(EngineKind::Auto, 1, false);
    let refusal = |queues, segments, serial: &str| {
        let image = Image::open(&rig.path, OpenOptions::unlocked()).unwrap();
        let options = Options {
            queues,
            segments,
            serial: serial.into(),
        };
        BlockDevice::new(Arc::new(image), options).err()
    };
    assert_eq!(refusal(1, 126, "exactly-twenty-bytes"), None);
    assert_eq!(refusal(256, 254, ""), None);
    assert_eq!(refusal(1, 1, ""), None);
    assert_eq!(refusal(0, 126, ""), Some(DeviceError::Queues(0)));
    assert_eq!(refusal(257, 126, ""), Some(DeviceError::Queues(257)));
    for segments in [0, 255, 65535] {
        let error = DeviceError::Segments(segments);
        assert_eq!(refusal(1, segments, ""), Some(error));
    }
    let long = "twenty-one-bytes-long";
    assert_eq!(
        refusal(1, 126, long),
        Some(DeviceError::Serial(long.into()))
    );
}

#[test]
fn data_is_read_written_and_flushed() {
    with_each_engine(|rig, driver| {
        let read = driver.run(&request(READ, 3, &[]), 1025, &[]);
        assert_eq!((read.status, read.written), (OK, 1025));
        assert_eq!(read.data, contents(3 * 512, 1024));

        let data = contents(77, 1536);
        let write = driver.run(&request(WRITE, 10, &data), 1, &[]);
        assert_eq!((write.status, write.written), (OK, 1));
        let read = driver.run(&request(READ, 9, &[]), 5 * 512 + 1, &[]);
        assert_eq!(read.data[512..2048], data);
        assert_eq!(read.data[..512], contents(9 * 512, 512));
        assert_eq!(read.data[2048..], contents(13 * 512, 512));

        let flush = driver.run(&request(FLUSH, 0, &[]), 1, &[]);
        assert_eq!((flush.status, flush.written), (OK, 1));
        assert_eq!(rig.image()[10 * 512..][..1536], data);
        assert_eq!(rig.image().len() as u64, SECTORS * SECTOR_SIZE);
    });
}

#[test]
fn a_driver_without_flush_gets_write_through() {
    for engine in ENGINES {
        let rig = Rig::new(engine, 1, false);
        let mut driver = Driver::new(1 << VIRTIO_F_VERSION_1);
        let cache = &rig.device.disk.cache;
        assert!(cache.is_write_through(driver.vring.features));
        driver.start(&rig.device);
        let write = driver.run(&request(WRITE, 1, &[7; 512]), 1, &[]);
        assert_eq!(write.status, OK);
        assert_eq!(rig.image()[512..1024], [7; 512]);
    }
    let rig = Rig::new(EngineKind::Auto, 1, false);
    assert!(!rig.device.disk.cache.is_write_through(FEATURES));
}

#[test]
fn get_id_returns_the_serial_number_padded_or_cut() {
    with_each_engine(|_, driver| {
        let full = b"serial-0123\0\0\0\0\0\0\0\0\0";
        for (room, sent) in [(20, 20), (24, 20), (6, 6), (0, 0)] {
            let answer = driver.run(&request(GET_ID, 0, &[]), room + 1, &[3, 9]);
            assert_eq!((answer.status, answer.written), (OK, sent + 1));
            let (id, rest) = answer.data.split_at(sent as usize);
            assert_eq!(id, &full[..sent as usize]);
            assert!(rest.iter().all(|&byte| byte == UNTOUCHED));
        }
    });
}

#[test]
fn bad_requests_are_refused_one_by_one_and_change_nothing() {
    with_each_engine(|rig, driver| {
        let cases = [
            (UNSUPP, request(15, 0, &[0; 16]), 1),
            (UNSUPP, request(99, 0, &[]), 513),
            (IOERR, request(READ, SECTORS, &[]), 513),
            (IOERR, request(READ, SECTORS - 1, &[]), 1025),
            (IOERR, request(READ, u64::MAX / 512 + 1, &[]), 513),
            (IOERR, request(WRITE, SECTORS, &[1; 512]), 1),
            (IOERR, request(READ, 0, &[]), 512),
            (IOERR, request(WRITE, 0, &[1; 511]), 1),
            (IOERR, request(READ, 0, &[1; 512]), 513),
            (IOERR, request(WRITE, 0, &[1; 512]), 513),
            (IOERR, request(READ, 0, &[])[..15].to_vec(), 513),
        ];
        for (status, readable, writable) in cases {
            let answer = driver.run(&readable, writable, &[]);
            assert_eq!((answer.status, answer.written), (status, 1));
            assert!(answer.data.iter().all(|&byte| byte == UNTOUCHED));
        }
        let good = driver.run(&request(READ, 0, &[]), 513, &[]);
        assert_eq!((good.status, good.data), (OK, contents(0, 512)));
        assert_eq!(rig.image(), contents(0, SECTORS * SECTOR_SIZE));
    });
}

#[test]
fn a_chain_without_a_usable_status_byte_is_given_back() {
    with_each_engine(|_, driver| {
        let answer = driver.run(&request(WRITE, 0, &[1; 512]), 0, &[]);
        assert_eq!((answer.status, answer.written), (None, 0));
        // Only the status byte is outside of the driver's memory.
        let header = driver.buffer(16);
        driver
            .memory
            .write_slice(&request(FLUSH, 0, &[]), GuestAddress(header))
            .unwrap();
        let status = (MEMORY_LEN, 1, true);
        let head = driver.add_buffers(&[(header, 16, false), status], (MEMORY_LEN, 1));
        driver.kick();
        let answer = driver.answer();
        assert_eq!((answer.head, answer.written), (head.into(), 0));
    });
}

#[test]
fn a_buffer_outside_memory_fails_only_its_request() {
    with_each_engine(|rig, driver| {
        for (kind, writable) in [(READ, true), (WRITE, false)] {
            let header = driver.buffer(16);
            let status = driver.buffer(1);
            driver
                .memory
                .write_slice(&request(kind, 0, &[]), GuestAddress(header))
                .unwrap();
            for addr in [MEMORY_LEN - 511, MEMORY_LEN, u64::MAX - 100] {
                let buffers = [
                    (header, 16, false),
                    (addr, 512, writable),
                    (status, 1, true),
                ];
                driver.add_buffers(&buffers, (status, 1));
                driver.kick();
                let answer = driver.answer();
                assert_eq!((answer.status, answer.written), (IOERR, 1), "{addr:#x}");
            }
        }
        assert_eq!(rig.image(), contents(0, SECTORS * SECTOR_SIZE));
        let good = driver.run(&request(READ, 0, &[]), 513, &[]);
        assert_eq!(good.status, OK);
    });
}

#[test]
fn buffers_may_be_cut_anywhere() {
    with_each_engine(|_, driver| {
        for cut in 1..=16 {
            let data = [cut as u8; 512];
            let write = driver.run(&request(WRITE, 1, &data), 1, &[cut]);
            assert_eq!(write.status, OK, "{cut}");
            let read = driver.run(&request(READ, 1, &[]), 513, &[cut, 513 - cut]);
            assert_eq!((read.status, read.written), (OK, 513), "{cut}");
            assert_eq!(read.data, data);
        }
        let every_third: Vec<_> = (1..170).map(|n| n * 3).step_by(6).collect();
        let read = driver.run(&request(READ, 2, &[]), 513, &every_third);
        assert_eq!((read.status, read.data), (OK, contents(1024, 512)));
    });
}

#[test]
fn indirect_tables_longer_than_the_vring_are_served() {
    for engine in ENGINES {
        let rig = Rig::new(engine, 1, false);
        let mut driver = Driver::new(FEATURES | 1 << VIRTIO_RING_F_INDIRECT_DESC);
        driver.start(&rig.device);
        // The indirect table has more descriptors than the vring.
        let cuts: Vec<_> = (1..400).map(|n| n * 9).collect();
        driver.add_indirect(3, &request(READ, 8, &[]), 8 * 512 + 1, &cuts);
        driver.kick();
        let read = driver.answer();
        assert_eq!((read.status, read.written), (OK, 4097));
        assert_eq!(read.data, contents(8 * 512, 4096));
    }
}

#[test]
fn a_read_only_disk_refuses_writes() {
    for engine in ENGINES {
        let rig = Rig::new(engine, 1, true);
        let mut driver = Driver::new(FEATURES);
        driver.start(&rig.device);
        let write = driver.run(&request(WRITE, 0, &[1; 512]), 1, &[]);
        assert_eq!(write.status, IOERR);
        let read = driver.run(&request(READ, 0, &[]), 513, &[]);
        assert_eq!((read.status, read.data), (OK, contents(0, 512)));
        assert_eq!(driver.run(&request(FLUSH, 0, &[]), 1, &[]).status, OK);
    }
}

#[test]
fn an_image_made_shorter_fails_reads_past_its_end() {
    with_each_engine(|rig, driver| {
        let file = File::options().write(true).open(&rig.path).unwrap();
        file.set_len(10 * 512 + 100).unwrap();
        let read = driver.run(&request(READ, 9, &[]), 1025, &[]);
        assert_eq!((read.status, read.written), (IOERR, 1));
        let read = driver.run(&request(READ, 9, &[]), 513, &[]);
        assert_eq!((read.status, read.data), (OK, contents(9 * 512, 512)));
    });
}

#[test]
fn failing_storage_fails_single_requests() {
    for engine in ENGINES {
        // The file /dev/full reads as zeroes, has no space for a write, and cannot be flushed.
        let full = File::options().read(true).write(true).open("/dev/full");
        let image = Image::from_file(full.unwrap(), SECTORS * SECTOR_SIZE, Abilities::default());
        let device = driver::device(image, engine);
        let mut driver = Driver::new(FEATURES);
        driver.start(&device);
        for _ in 0..3 {
            let write = driver.run(&request(WRITE, 0, &[1; 512]), 1, &[]);
            assert_eq!((write.status, write.written), (IOERR, 1));
            let flush = driver.run(&request(FLUSH, 0, &[]), 1, &[]);
            assert_eq!(flush.status, IOERR);
            let read = driver.run(&request(READ, 0, &[]), 513, &[]);
            assert_eq!((read.status, read.data), (OK, vec![0; 512]));
        }
        assert!(device.disk.image.sync().is_err());
        driver.stop();
    }
}

/// Makes memory of `count` regions of 4 KiB each, with no gaps between the regions' addresses.
fn patchwork(count: u64) -> Arc<GuestMemory> {
    // The file has the pages in reverse order, so regions that are adjacent in the driver's memory
    // are not adjacent in this process.
    let file = anonymous_file(count * 0x1000);
    let region = |n| {
        let offset = (count - 1 - n) * 0x1000;
        Region::map(file.clone(), offset, GuestAddress(n * 0x1000), 0x1000, true).unwrap()
    };
    Arc::new(GuestMemory::from_regions((0..count).map(region).collect()).unwrap())
}

#[test]
fn buffers_may_cross_memory_regions() {
    for engine in ENGINES {
        // Each page of the transfer is a separate buffer. A transfer of this length has more
        // buffers than one system call takes.
        let len = 9 << 20;
        let rig = Rig::new(engine, 1, false);
        std::fs::write(&rig.path, contents(5, len)).unwrap();
        let image = Image::open(&rig.path, OpenOptions::unlocked()).unwrap();
        let device = driver::device(image, engine);
        let mut driver = Driver::in_memory(patchwork(MEMORY_LEN >> 12), 0, FEATURES);
        driver.start(&device);

        let data = 0x40_0123;
        let read = transfer(&mut driver, READ, (data, len as u32, true));
        assert!(read.data == contents(5, len));
        // The image is cleared. The write then restores the data that the driver read before.
        File::create(&rig.path).unwrap().set_len(len).unwrap();
        transfer(&mut driver, WRITE, (data, len as u32, false));
        assert!(rig.image() == contents(5, len));
        driver.stop();
    }
}

/// Moves the first sectors of the disk to or from one buffer.
fn transfer(driver: &mut Driver, kind: u32, data: (u64, u32, bool)) -> Answer {
    let header = driver.buffer(16);
    let bytes = request(kind, 0, &[]);
    let header_addr = GuestAddress(header);
    driver.memory.write_slice(&bytes, header_addr).unwrap();
    let (addr, len, _) = data;
    let status = (addr + u64::from(len), 1, true);
    driver.add_buffers(&[(header, 16, false), data, status], (addr, len + 1));
    driver.kick();
    let answer = driver.answer();
    assert_eq!(answer.status, OK);
    answer
}
