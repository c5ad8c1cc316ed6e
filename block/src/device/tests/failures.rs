//! Tests with storage that is full, or that reports errors.

use super::features::ranges;
use super::*;
use crate::loop_device::LoopDevice;
use crate::{Cache, ImageError};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_WRITE_ZEROES as WRITE_ZEROES;

/// Size of the images. The file system has room for only 1 MiB of an image.
const SIZE: u64 = 16 << 20;

/// A small file system that holds one sparse file. The file's size is larger than the file system.
/// Dropping this object unmounts the file system.
struct SmallFileSystem {
    folder: TempDir,
}

impl SmallFileSystem {
    /// Mounts the file system. If the mount fails, prints a message and returns `None`.
    fn new() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1M", "tmpfs"])
            .arg(folder.path())
            .output();
        if !mount.is_ok_and(|output| output.status.success()) {
            println!("SKIPPED, because a tmpfs cannot be mounted (it needs root)");
            return None;
        }
        let this = Self { folder };
        File::create(this.image()).unwrap().set_len(SIZE).unwrap();
        Some(this)
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("disk.img")
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        // The unmount is lazy (`-l`), because an ordinary unmount fails while files are open, and a
        // process that another test started may have inherited open files of this file system.
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.folder.path())
            .status();
    }
}

/// Runs a test with each engine. Skips the test if the file system does not support direct I/O.
fn serve(path: &Path, cache: Cache, test: impl Fn(&Arc<BlockDevice>, &mut Driver)) {
    for engine in ENGINES {
        let options = OpenOptions {
            cache,
            ..OpenOptions::unlocked()
        };
        let image = match Image::open(path, options) {
            Err(error @ ImageError::NoDirectIo { .. }) => return println!("SKIPPED: {error}"),
            image => image.unwrap(),
        };
        let device = driver::device(image, engine);
        let mut driver = Driver::new(FEATURES);
        driver.start(&device);
        test(&device, &mut driver);
        driver.stop();
    }
}

/// Makes four writes of 64 KiB in each MiB of the disk. Returns how many of these writes failed.
fn fill(driver: &mut Driver) -> usize {
    fill_from(driver, 0)
}

/// Like [`fill`], but all writes begin this number of sectors later.
fn fill_from(driver: &mut Driver, first: u64) -> usize {
    let mut failed = 0;
    for mebibyte in 0..SIZE >> 20 {
        for piece in 0..4 {
            let sector = first + mebibyte * 2048 + piece * 128;
            let write = driver.run(&request(WRITE, sector, &[0x66; 64 << 10]), 1, &[]);
            assert!(write.status == OK || write.status == IOERR);
            failed += usize::from(write.status == IOERR);
            driver.rewind_buffers();
        }
    }
    failed
}

#[test]
fn a_full_file_system_fails_only_the_writes_that_do_not_fit() {
    for cache in [Cache::Writeback, Cache::Writethrough, Cache::None] {
        let Some(small) = SmallFileSystem::new() else {
            return;
        };
        serve(&small.image(), cache, |_, driver| {
            let failed = fill(driver);
            assert!((40..64).contains(&failed), "{failed} writes failed");
            // The image has the written data, and the other ranges of the image have not changed.
            let read = driver.run(&request(READ, 0, &[]), 513, &[]);
            assert_eq!((read.status, read.data), (OK, vec![0x66; 512]));
            let read = driver.run(&request(READ, SIZE / 512 - 1, &[]), 513, &[]);
            assert_eq!((read.status, read.data), (OK, vec![0; 512]));
            assert_eq!(driver.run(&request(FLUSH, 0, &[]), 1, &[]).status, OK);
            // This request does not allow holes. So the zeroed range needs space, and the file
            // system is full.
            let list = ranges(&[(8192, 8192, 0)]);
            let zeroes = driver.run(&request(WRITE_ZEROES, 0, &list), 1, &[]);
            assert_eq!(zeroes.status, IOERR);
            let list = ranges(&[(0, (SIZE / 512) as u32, 1)]);
            let zeroes = driver.run(&request(WRITE_ZEROES, 0, &list), 1, &[]);
            // The request allowed holes, and tmpfs can make holes in a full file system.
            assert_eq!(zeroes.status, OK);
            assert_eq!(std::fs::metadata(small.image()).unwrap().len(), SIZE);
        });
    }
}

#[test]
fn after_a_failing_device_lost_writes_every_flush_fails() {
    let Some(small) = SmallFileSystem::new() else {
        return;
    };
    let Some(device) = LoopDevice::new(&small.image(), 4096) else {
        return;
    };
    for cache in [Cache::Writeback, Cache::None] {
        serve(&device.path, cache, |device, driver| {
            // The writes are not aligned to the blocks of the device. So all data goes through the
            // page cache, even with the cache mode for direct I/O.
            assert_eq!(fill_from(driver, 1), 0, "{cache:?}");
            for _ in 0..2 {
                // The kernel reports the lost writes only to the first flush. The device has to
                // remember them for the second flush.
                let flush = driver.run(&request(FLUSH, 0, &[]), 1, &[]);
                assert_eq!(flush.status, IOERR, "{cache:?}");
            }
            assert!(device.disk.image.sync().is_err(), "{cache:?}");
        });
    }
}

#[test]
fn a_failed_stable_write_does_not_hide_that_an_earlier_write_was_lost() {
    let Some(small) = SmallFileSystem::new() else {
        return;
    };
    let Some(device) = LoopDevice::new(&small.image(), 512) else {
        return;
    };
    let path = &device.path;
    serve(path, Cache::Writeback, |device, driver| {
        assert_eq!(fill(driver), 0);
        // This flush through another descriptor makes the kernel write the file's cached data to
        // the storage, which fails. The kernel reports the failure once for each open file, so the
        // virtio device, which has its own open file, still gets a report.
        let other = File::options().write(true).open(path).unwrap();
        assert!(other.sync_data().is_err());
        // If a driver cannot flush, the device makes each of its writes stable.
        driver.stop();
        driver.vring.features = 1 << VIRTIO_F_VERSION_1;
        driver.start(device);
        let write = driver.run(&request(WRITE, 8, &[1; 512]), 1, &[]);
        assert_eq!(write.status, IOERR);
        driver.stop();
        driver.vring.features = FEATURES;
        driver.start(device);
        let flush = driver.run(&request(FLUSH, 0, &[]), 1, &[]);
        assert_eq!(flush.status, IOERR);
    });
}

#[test]
fn a_failing_device_fails_writes_that_have_to_be_stable_at_once() {
    let Some(small) = SmallFileSystem::new() else {
        return;
    };
    let Some(device) = LoopDevice::new(&small.image(), 512) else {
        return;
    };
    for cache in [Cache::Writethrough, Cache::None] {
        serve(&device.path, cache, |_, driver| {
            assert!(fill(driver) >= 32);
            let read = driver.run(&request(READ, 0, &[]), 513, &[]);
            assert_eq!((read.status, read.data), (OK, vec![0x66; 512]));
        });
    }
}

#[test]
fn a_device_that_cannot_be_accessed_fails_single_requests() {
    for engine in ENGINES {
        // The image is the memory of this process. No memory is mapped at address 0, so the kernel
        // reports EIO for reads and writes at offset 0.
        let memory = File::options()
            .read(true)
            .write(true)
            .open("/proc/self/mem");
        let image = Image::from_file(memory.unwrap(), 4096, Abilities::default());
        let device = driver::device(image, engine);
        let mut driver = Driver::new(FEATURES);
        driver.start(&device);
        for _ in 0..3 {
            let read = driver.run(&request(READ, 0, &[]), 1025, &[]);
            assert_eq!((read.status, read.written), (IOERR, 1));
            let write = driver.run(&request(WRITE, 0, &[1; 512]), 1, &[]);
            assert_eq!(write.status, IOERR);
            let id = driver.run(&request(GET_ID, 0, &[]), 21, &[]);
            assert_eq!(id.status, OK);
        }
        driver.stop();
    }
}
