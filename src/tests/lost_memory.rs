//! Tests of programs in the whole jail with peers that truncate the file of their memory.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use vfio_user::{Client, DmaFlags};
use virtio::pci::common;
use virtio::test_utils::anonymous_file;

use super::disk::Disk;
use super::harness::{Folder, PATIENCE, Running};

const BLOCK: &str = env!("CARGO_BIN_EXE_vvu-block");
const PROXY: &str = env!("CARGO_BIN_EXE_vvu-proxy");

/// Ends a program, and checks its exit code. Its log must report that memory is lost.
fn ends_well(running: Running) {
    running.signal(libc::SIGTERM);
    let output = running.output();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("memory is lost"), "{stderr}");
}

#[test]
fn a_front_end_that_truncates_its_memory_is_dropped_and_the_next_one_is_served() {
    for engine in ["auto", "io_uring", "threads"] {
        let folder = Folder::new();
        let arguments = "--sandbox=full --socket-path vu.sock disk.img --aio";
        let running = Running::start(folder.command(BLOCK, &format!("{arguments} {engine}")));
        running.line();
        for _ in 0..2 {
            let mut disk = Disk::new(UnixStream::connect(folder.path("vu.sock")).unwrap());
            assert_eq!(disk.write(3, 0x5a), 0);
            disk.truncate_memory();
        }
        let mut disk = Disk::new(UnixStream::connect(folder.path("vu.sock")).unwrap());
        assert_eq!(disk.write(3, 0x5a), 0);
        ends_well(running);
    }
}

/// The kernel accesses the data, and finds no page.
#[test]
fn a_request_with_data_in_truncated_memory_fails_alone() {
    for engine in ["auto", "io_uring", "threads"] {
        let folder = Folder::new();
        let arguments = "--sandbox=full --socket-path vu.sock disk.img --aio";
        let running = Running::start(folder.command(BLOCK, &format!("{arguments} {engine}")));
        running.line();
        let mut disk = Disk::new(UnixStream::connect(folder.path("vu.sock")).unwrap());
        assert_eq!(disk.write(3, 0x5a), 0);
        for (kind, is_written) in [(0, true), (1, false)] {
            assert_eq!(
                disk.request_in_missing_page(kind, is_written),
                1,
                "{engine}"
            );
        }
        assert_eq!(disk.write(3, 0x5b), 0, "the ring is served");
    }
}

/// The memory is a BAR of a VVU device.
#[test]
fn a_front_end_that_truncates_its_memory_behind_a_vvu_device_is_dropped_and_can_come_back() {
    let folder = Folder::new();
    let arguments = "--sandbox=full --socket-path vu.sock --vfio-user-path vvu.sock \
                     --any-memory-file --memory ram,size=1M";
    let proxy = Running::start(folder.command(PROXY, arguments));
    proxy.line();
    let arguments = "--sandbox=full --any-memory-file --pci vfio-user:vvu.sock disk.img";
    let block = Running::start(folder.command(BLOCK, arguments));
    block.line();
    let mut options = File::options();
    let ram = options.read(true).write(true).open(folder.path("ram"));
    let ram = Arc::new(ram.unwrap());
    for _ in 0..3 {
        ram.set_len(1 << 20).unwrap();
        let stream = UnixStream::connect(folder.path("vu.sock")).unwrap();
        let mut disk = Disk::in_file(stream, 0, ram.clone());
        assert_eq!(disk.write(3, 0x5a), 0);
        disk.truncate_memory();
    }
    ends_well(block);
    proxy.signal(libc::SIGTERM);
    assert_eq!(proxy.output().status.code(), Some(0));
}

const IOVA: u64 = 0x10_0000;
const SIZE: u64 = 0x10_0000;

/// Sets up queue 1 of a function in the memory of a file, truncates the file, sets DRIVER_OK and
/// notifies the queue. Waits until the function has dropped the client.
fn lose_memory_of_queue_1(client: &mut Client) {
    let file = anonymous_file(SIZE);
    let access = DmaFlags::READ | DmaFlags::WRITE;
    client.dma_map(IOVA, SIZE, file.as_fd(), 0, access).unwrap();
    let mut write = |offset, data: &[u8]| client.region_write(0, offset, data);
    write(common::DEVICE_STATUS, &[3]).unwrap();
    // VERSION_1 and ACCESS_PLATFORM.
    write(common::DRIVER_FEATURE_SELECT, &1u32.to_le_bytes()).unwrap();
    write(common::DRIVER_FEATURE, &3u32.to_le_bytes()).unwrap();
    write(common::DEVICE_STATUS, &[0xb]).unwrap();
    write(common::QUEUE_SELECT, &1u16.to_le_bytes()).unwrap();
    write(common::QUEUE_SIZE, &16u16.to_le_bytes()).unwrap();
    for (part, at) in [
        (common::QUEUE_DESC, IOVA),
        (common::QUEUE_DRIVER, IOVA + 0x1000),
        (common::QUEUE_DEVICE, IOVA + 0x2000),
    ] {
        write(part, &at.to_le_bytes()).unwrap();
    }
    write(common::QUEUE_ENABLE, &1u16.to_le_bytes()).unwrap();
    file.set_len(0).unwrap();
    // The function reads the ring during these writes. It may drop the client before it answers
    // them.
    let _ = write(common::DEVICE_STATUS, &[0xf]);
    let _ = write(0x3004, &1u16.to_le_bytes());
    let gone = [ipc::Interest::Readable(client.as_fd())];
    assert_eq!(ipc::poll(gone, Some(PATIENCE)).unwrap(), [true]);
    assert!(client.device_info().is_err());
}

#[test]
fn a_vfio_user_client_that_truncates_its_memory_is_dropped_and_the_next_one_is_served() {
    let block = "--sandbox=full --virtio-pci-socket vfio.sock disk.img";
    let proxy = "--sandbox=full --vfio-user-path vfio.sock --socket-path vu.sock \
                 --any-memory-file --memory ram,size=1M";
    for (program, arguments) in [(BLOCK, block), (PROXY, proxy)] {
        let folder = Folder::new();
        let running = Running::start(folder.command(program, arguments));
        running.line();
        let connect = || Client::connect(&folder.path("vfio.sock"), PATIENCE).unwrap();
        for _ in 0..2 {
            lose_memory_of_queue_1(&mut connect());
        }
        connect().device_info().unwrap();
        ends_well(running);
    }
}
