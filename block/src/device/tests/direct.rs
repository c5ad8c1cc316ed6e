//! Tests of direct I/O, with driver memory that the kernel can pin and memory that it cannot pin.

use super::*;
use crate::Cache;

/// Makes driver memory of one region. `pinnable` says whether the kernel can pin the memory.
pub fn whole(len: u64, pinnable: bool) -> Arc<GuestMemory> {
    let region = Region::map(anonymous_file(len), 0, GuestAddress(0), len, pinnable);
    Arc::new(GuestMemory::from_regions(vec![region.unwrap()]).unwrap())
}

/// Runs a test with each engine, with pinnable and with unpinnable driver memory.
fn with_each_memory(test: impl Fn(&Rig, &mut Driver)) {
    for (engine, pinnable) in ENGINES.into_iter().flat_map(|e| [(e, true), (e, false)]) {
        let Some(rig) = Rig::cached(engine, Cache::None) else {
            return;
        };
        let mut driver = Driver::in_memory(whole(MEMORY_LEN, pinnable), 0, FEATURES);
        driver.start(&rig.device);
        test(&rig, &mut driver);
        driver.stop();
    }
}

/// The aligned address of a test's data. The driver's other buffers are below this address.
const DATA: u64 = 8 << 20;

#[test]
fn data_at_any_alignment_is_written_and_read() {
    with_each_memory(|rig, driver| {
        // The first three addresses are aligned to pages, sectors and words. The last address is
        // not aligned.
        for address in [DATA, DATA + 512, DATA + 4, DATA + 0x123] {
            let data = contents(address, 32 << 10);
            driver
                .memory
                .write_slice(&data, GuestAddress(address))
                .unwrap();
            transfer(driver, WRITE, (address, 32 << 10, false));
            // The test reads the image through the page cache, which also shows the new data.
            assert!(rig.image()[..32 << 10] == data, "{address:#x}");
            let other = DATA + (2 << 20) + (address & 0xfff);
            let read = transfer(driver, READ, (other, 32 << 10, true));
            assert!(read.data == data, "{address:#x}");
        }
    });
}

#[test]
fn single_sectors_are_written_read_and_flushed() {
    with_each_memory(|rig, driver| {
        for sector in [0, 3, 8, SECTORS - 1] {
            let data = [sector as u8; 512];
            let write = driver.run(&request(WRITE, sector, &data), 1, &[]);
            assert_eq!((write.status, write.written), (OK, 1));
            let read = driver.run(&request(READ, sector, &[]), 513, &[]);
            assert_eq!((read.status, read.written), (OK, 513));
            assert_eq!(read.data, data);
        }
        assert_eq!(driver.run(&request(FLUSH, 0, &[]), 1, &[]).status, OK);
        assert_eq!(rig.image().len() as u64, SECTORS * SECTOR_SIZE);
    });
}

#[test]
fn a_transfer_may_be_larger_than_the_private_buffer() {
    let len = 3 << 20;
    for (engine, pinnable) in ENGINES.into_iter().flat_map(|e| [(e, true), (e, false)]) {
        let rig = Rig::new(engine, 1, false);
        std::fs::write(&rig.path, contents(1, len)).unwrap();
        let Some(rig) = rig.reopened(engine, Cache::None) else {
            return;
        };
        let mut driver = Driver::in_memory(whole(MEMORY_LEN, pinnable), 0, FEATURES);
        driver.start(&rig.device);
        let read = transfer(&mut driver, READ, (DATA + 8, len as u32, true));
        assert!(read.data == contents(1, len));
        let data = contents(2, len);
        let address = GuestAddress(DATA + 3);
        driver.memory.write_slice(&data, address).unwrap();
        transfer(&mut driver, WRITE, (DATA + 3, len as u32, false));
        assert!(rig.image() == data);
        driver.stop();
    }
}

#[test]
fn a_buffer_outside_memory_fails_only_its_request() {
    with_each_memory(|rig, driver| {
        let before = rig.image();
        for (kind, writable) in [(READ, true), (WRITE, false)] {
            let (header, status) = (driver.buffer(16), driver.buffer(1));
            let bytes = request(kind, 0, &[]);
            driver
                .memory
                .write_slice(&bytes, GuestAddress(header))
                .unwrap();
            let data = (MEMORY_LEN - 4096, 8192, writable);
            driver.add_buffers(&[(header, 16, false), data, (status, 1, true)], (status, 1));
            driver.kick();
            assert_eq!(driver.answer().status, IOERR);
        }
        assert!(rig.image() == before);
    });
}

#[test]
fn an_image_made_shorter_fails_reads_past_its_end() {
    with_each_memory(|rig, driver| {
        let file = File::options().write(true).open(&rig.path).unwrap();
        file.set_len(16 * 512).unwrap();
        let read = driver.run(&request(READ, 8, &[]), 16 * 512 + 1, &[]);
        assert_eq!((read.status, read.written), (IOERR, 1));
        let read = driver.run(&request(READ, 8, &[]), 8 * 512 + 1, &[]);
        assert_eq!((read.status, read.data), (OK, contents(8 * 512, 4096)));
    });
}
