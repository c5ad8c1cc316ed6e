//! Tests of memory whose file is truncated while it is in use.

use super::*;
use crate::chain::BufferError;
use crate::test_utils::PackedDriverRing;
use crate::{QueueError, VringLayout};
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use vm_memory::{FileOffset, MmapRegion, ReadVolatile, VolatileMemory};

const SIZE: u64 = 0x10000;

/// Memory from address 0, and its file.
fn memory_and_file() -> (Arc<GuestMemory>, Arc<File>) {
    survive_losses().unwrap();
    let file = anonymous_file(SIZE);
    let region = Region::map(file.clone(), 0, GuestAddress(0), SIZE, true).unwrap();
    let memory = GuestMemory::from_regions(vec![region]).unwrap();
    (Arc::new(memory), file)
}

#[test]
fn truncated_memory_reads_as_zeroes_and_is_lost() {
    let (memory, file) = memory_and_file();
    for page in 0..SIZE >> 12 {
        memory.write_obj(7u8, GuestAddress(page << 12)).unwrap();
    }
    file.set_len(0x2000).unwrap();
    assert!(!memory.is_lost(), "nothing was accessed yet");
    assert_eq!(memory.read_obj::<u8>(GuestAddress(0x2000)).unwrap(), 0);
    assert!(memory.is_lost());
    assert_eq!(memory.read_obj::<u8>(GuestAddress(0x1000)).unwrap(), 7);
    // Copy from many missing pages.
    let mut rest = vec![1; 0xe000];
    memory.read_slice(&mut rest, GuestAddress(0x2000)).unwrap();
    assert_eq!(rest, [0; 0xe000]);
    memory.write_obj(9u8, GuestAddress(0xf000)).unwrap();
    file.set_len(SIZE).unwrap();
    assert_eq!(memory.read_obj::<u8>(GuestAddress(0xf000)).unwrap(), 9);
}

#[test]
fn memory_of_other_files_is_not_lost() {
    let (lost, file) = memory_and_file();
    let (kept, _) = memory_and_file();
    file.set_len(0).unwrap();
    lost.write_obj(1u8, GuestAddress(0)).unwrap();
    assert!(lost.is_lost() && !kept.is_lost());
    drop(lost);
    // The next region may be mapped at the address of the lost region.
    let (next, _) = memory_and_file();
    next.write_obj(1u8, GuestAddress(0)).unwrap();
    assert!(!next.is_lost());
}

/// Checks that a queue fails at its next step after its memory was truncated.
fn check_queue(layout: VringLayout, memory: &Arc<GuestMemory>, file: &File) {
    let fails = |result: Result<bool, QueueError>| {
        assert!(
            matches!(result, Err(QueueError::MemoryLost(_))),
            "{result:?}"
        );
    };
    let mut queue = Queue::new(memory.clone(), layout, 0, first_position(layout)).unwrap();
    file.set_len(0).unwrap();
    fails(queue.pop(&mut Chain::default()));
    fails(queue.enable_kick());
    fails(queue.push_used(0, 0).and_then(|()| queue.needs_call()));
}

fn first_position(layout: VringLayout) -> u16 {
    crate::vring::first_position(layout.packed)
}

#[test]
fn a_queue_whose_memory_is_truncated_fails() {
    let (memory, file) = memory_and_file();
    let mut ring = DriverRing::new(memory.clone(), 0x1000, 16);
    ring.add(&[(0x4000, 16, false)]);
    check_queue(ring.layout(), &memory, &file);
    let (memory, file) = memory_and_file();
    let mut ring = PackedDriverRing::new(memory.clone(), 0x1000, 16);
    ring.add(&[(0x4000, 16, false)]);
    check_queue(ring.layout(), &memory, &file);
}

#[test]
fn zeroes_in_the_place_of_a_lost_buffer_are_not_read() {
    let (memory, file) = memory_and_file();
    let mut ring = DriverRing::new(memory.clone(), 0x1000, 16);
    ring.add(&[(0x8000, 16, false)]);
    let mut queue = Queue::new(memory.clone(), ring.layout(), 0, 0).unwrap();
    let mut chain = Chain::default();
    assert!(queue.pop(&mut chain).unwrap());
    // The truncated file still holds the rings, but not the buffer.
    file.set_len(0x8000).unwrap();
    let read = chain.readable.read(&memory, 0, &mut [0; 16]);
    assert!(matches!(read, Err(BufferError::MemoryLost(_))), "{read:?}");
}

#[test]
fn a_system_call_fails_in_truncated_memory() {
    let (memory, file) = memory_and_file();
    let slice = memory.first_slice(GuestAddress(0), 16, Permissions::Write);
    file.set_len(0).unwrap();
    let mut zeroes = File::open("/dev/zero").unwrap();
    let read = zeroes.read_volatile(&mut slice.unwrap());
    assert!(read.is_err(), "EFAULT");
    assert!(!memory.is_lost());
}

#[test]
fn a_missing_huge_page_is_replaced_as_a_whole() {
    const HUGE: u64 = 2 << 20;
    survive_losses().unwrap();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    let Ok(file) = memfd_create("huge", flags).map(File::from) else {
        return;
    };
    ftruncate(&file, 2 * HUGE).unwrap();
    let first = fallocate(&file, FallocateFlags::empty(), 0, HUGE).is_ok();
    let file = Arc::new(file);
    let region = Region::map(file.clone(), 0, GuestAddress(0), 2 * HUGE, true).unwrap();
    let memory = GuestMemory::from_regions(vec![region]).unwrap();
    if first {
        memory.write_obj(7u8, GuestAddress(0)).unwrap();
    }
    file.set_len(HUGE).unwrap();
    memory.write_obj(1u8, GuestAddress(HUGE + 0x1001)).unwrap();
    assert!(memory.is_lost());
    assert_eq!(memory.read_obj::<u8>(GuestAddress(HUGE)).unwrap(), 0);
    if first {
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0)).unwrap(), 7);
    }
    // If the system has no huge page at all, the first page is missing as well.
    memory.write_obj(1u8, GuestAddress(0)).unwrap();
}

/// This environment variable is set in a child process that runs only one test.
const CHILD: &str = "VVU_TEST_CHILD";

/// Runs the test `name` of this module in a child process, and returns the child's exit status.
/// Returns `None` if this process is already the child.
fn in_child(name: &str) -> Option<ExitStatus> {
    if std::env::var_os(CHILD).is_some() {
        return None;
    }
    let test = format!("memory::tests::lost::{name}");
    let mut child = Command::new(std::env::current_exe().unwrap());
    let ended = child.args(["--exact", &test]).env(CHILD, "1").output();
    Some(ended.unwrap().status)
}

#[test]
fn a_page_that_is_missing_outside_of_peers_memory_ends_the_process_by_sigbus() {
    let name = "a_page_that_is_missing_outside_of_peers_memory_ends_the_process_by_sigbus";
    if let Some(status) = in_child(name) {
        return assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
    }
    let (_memory, _file) = memory_and_file();
    let own = anonymous_file(0x1000);
    let offset = FileOffset::from_arc(own.clone(), 0);
    let mapping = MmapRegion::<()>::from_file(offset, 0x1000).unwrap();
    own.set_len(0).unwrap();
    let _ = mapping.get_slice(0, 8).unwrap().read_obj::<u64>(0);
    unreachable!("the access ends the process");
}

/// The test accesses every second page, so the pages that replace them cannot become one mapping.
/// The kernel allows a process about 65,000 mappings.
#[test]
fn more_pages_can_be_lost_than_there_can_be_mappings() {
    if let Some(status) = in_child("more_pages_can_be_lost_than_there_can_be_mappings") {
        return assert!(status.success(), "{status}");
    }
    const PAGES: u64 = 140_000;
    survive_losses().unwrap();
    let file = anonymous_file(PAGES << 12);
    let region = Region::map(file.clone(), 0, GuestAddress(0), PAGES << 12, true).unwrap();
    let memory = GuestMemory::from_regions(vec![region]).unwrap();
    file.set_len(0).unwrap();
    for page in (0..PAGES).step_by(2) {
        memory.write_obj(1u8, GuestAddress(page << 12)).unwrap();
    }
    assert!(memory.is_lost());
}
