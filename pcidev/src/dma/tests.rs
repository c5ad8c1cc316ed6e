use super::*;
use std::os::fd::OwnedFd;
use virtio::memory::MAX_MAPPINGS;
use virtio::test_utils::anonymous_file;
use vm_memory::Bytes;

fn map(file: Option<&File>, offset: u64, address: u64, size: u64) -> DmaMap {
    DmaMap {
        address,
        size,
        offset,
        flags: DmaFlags::READ | DmaFlags::WRITE,
        fd: file.map(|file| OwnedFd::from(file.try_clone().unwrap())),
    }
}

fn range(address: u64, size: u64) -> DmaUnmap {
    DmaUnmap::Range { address, size }
}

fn unmap(table: &mut DmaTable, request: DmaUnmap) {
    if let Some((first, last)) = addresses(request) {
        table.unmap(first, last);
    }
}

#[test]
fn a_range_is_memory_until_it_is_taken_away() {
    let file = anonymous_file(0x4000);
    let mut table = DmaTable::default();
    assert!(table.memory().is_none());
    table
        .map(map(Some(&file), 0x1000, 0x10_0000, 0x2000))
        .unwrap();
    let memory = table.memory().unwrap();
    memory.write_obj(0x77u8, GuestAddress(0x10_0001)).unwrap();
    table.map(map(Some(&file), 0, 0, 0x4000)).unwrap();
    let memory = table.memory().unwrap();
    assert_eq!(memory.read_obj::<u8>(GuestAddress(0x1001)).unwrap(), 0x77);
    unmap(&mut table, range(0, 0x4000));
    let memory = table.memory().unwrap();
    assert!(memory.read_obj::<u8>(GuestAddress(0x1001)).is_err());
    assert!(memory.read_obj::<u8>(GuestAddress(0x10_0001)).is_ok());
    unmap(&mut table, DmaUnmap::All);
    assert!(table.memory().is_none());
}

#[test]
fn adjacent_ranges_of_a_file_become_one() {
    let file = anonymous_file(0x100_0000);
    let mut table = DmaTable::default();
    for page in 0..0x1000 {
        table
            .map(map(Some(&file), page << 12, page << 12, 0x1000))
            .unwrap();
    }
    assert_eq!((table.translation.len(), table.files.len()), (1, 1));
    assert_eq!(table.memory().unwrap().num_regions(), 1);
    unmap(&mut table, range(0x3000, 0x1000));
    assert_eq!(table.translation.len(), 2);
    let memory = table.memory().unwrap();
    memory.write_obj(0x55u8, GuestAddress(0x4000)).unwrap();
    drop(memory);
    table
        .map(map(Some(&file), 0x4000, 0x2000_0000, 0x1000))
        .unwrap();
    let memory = table.memory().unwrap();
    assert_eq!(
        memory.read_obj::<u8>(GuestAddress(0x2000_0000)).unwrap(),
        0x55
    );
}

#[test]
fn a_range_that_overlaps_another_is_refused() {
    let file = anonymous_file(0x8000);
    let mut table = DmaTable::default();
    table.map(map(Some(&file), 0, 0x2000, 0x2000)).unwrap();
    for (address, size) in [(0x2000, 0x2000), (0x1000, 0x1001), (0x3fff, 1), (0, 0x8000)] {
        let result = table.map(map(Some(&file), 0, address, size));
        assert_eq!(result, Err(Errno::EXIST), "{address:#x}");
    }
    table.map(map(Some(&file), 0, 0x4000, 0x1000)).unwrap();
    table.map(map(Some(&file), 0, 0, 0x2000)).unwrap();
}

#[test]
fn a_range_without_a_file_keeps_its_addresses() {
    let short = anonymous_file(0x1000);
    let mut table = DmaTable::default();
    table.map(map(None, 0, 0, 0x1000)).unwrap();
    let too_long = map(Some(&short), 0, 0x1000, 0x2000);
    assert_eq!(table.map(too_long), Err(Errno::INVAL));
    table.map(map(Some(&short), 0, 0x8000, 0x1000)).unwrap();
    let memory = table.memory().unwrap();
    assert!(memory.read_obj::<u8>(GuestAddress(0)).is_err());
    assert!(memory.read_obj::<u8>(GuestAddress(0x1000)).is_err());
    assert!(memory.read_obj::<u8>(GuestAddress(0x8000)).is_ok());
    assert_eq!(table.map(map(None, 0, 0, 0x1000)), Err(Errno::EXIST));
}

#[test]
fn unmapping_takes_away_what_lies_in_the_range_and_nothing_else() {
    let file = anonymous_file(0x4000);
    let mut table = DmaTable::default();
    unmap(&mut table, range(0, u64::MAX));
    table
        .map(map(Some(&file), 0, u64::MAX - 0x4000, 0x4000))
        .unwrap();
    unmap(&mut table, range(u64::MAX, u64::MAX));
    unmap(&mut table, range(0, 0));
    assert_eq!(table.translation.len(), 1);
    unmap(&mut table, range(1 << 63, 1 << 63));
    assert!(table.translation.is_empty());
    assert!(table.files.is_empty());
}

#[test]
fn the_number_of_ranges_is_limited() {
    let mut table = DmaTable::default();
    for number in 0..MAX_MAPPINGS as u64 {
        table.map(map(None, 0, number << 13, 0x1000)).unwrap();
    }
    let more = map(None, 0, u64::MAX - 0x1000, 0x1000);
    assert_eq!(table.map(more), Err(Errno::NOSPC));
}

#[test]
fn a_file_on_a_file_system_that_may_not_answer_is_refused_unless_it_is_accepted() {
    let request = || DmaMap {
        flags: DmaFlags::READ,
        ..map(Some(&File::open("/proc/self/exe").unwrap()), 0, 0, 0x1000)
    };
    assert_eq!(DmaTable::default().map(request()), Err(Errno::ACCESS));
    DmaTable::new(MemoryFiles::any()).map(request()).unwrap();
}

#[test]
fn a_client_may_map_and_unmap_more_than_all_addresses() {
    const SIZE: u64 = 1 << 46;
    let (large, small) = (anonymous_file(SIZE), anonymous_file(0x1000));
    let mut table = DmaTable::default();
    // This range keeps the table from becoming empty.
    table.map(map(Some(&small), 0, 0x1000, 0x1000)).unwrap();
    for round in 0..=1 << 18 {
        let mapped = table.map(map(Some(&large), 0, 0, 0x1000));
        assert_eq!(mapped, Ok(()), "round {round}");
        unmap(&mut table, range(0, 0x1000));
    }
}

#[test]
fn a_file_gets_the_lowest_free_addresses_that_are_large_enough() {
    let mut table = DmaTable::default();
    let file = |pages: u64| anonymous_file(pages << 12);
    for (slot, pages) in [(0, 2), (1, 1), (2, 4)] {
        let size = pages << 12;
        let request = map(Some(&file(pages)), 0, slot << 20, size);
        table.map(request).unwrap();
    }
    let starts = |table: &DmaTable| {
        let starts = table.files.iter().map(|known| known.region.start_addr().0);
        starts.collect::<Vec<_>>()
    };
    assert_eq!(starts(&table), [0, 0x3000, 0x5000]);
    unmap(&mut table, range(0, 0x2000));
    for (slot, pages) in [(3, 3), (4, 2), (5, 1)] {
        let size = pages << 12;
        table
            .map(map(Some(&file(pages)), 0, slot << 20, size))
            .unwrap();
    }
    // After each file there is a gap, so that ranges of two files are never merged.
    assert_eq!(starts(&table), [0, 0x3000, 0x5000, 0xa000, 0xe000]);
    assert_eq!(table.memory().unwrap().num_regions(), 5);
}

#[test]
fn queues_in_use_see_ranges_come_and_go() {
    let file = anonymous_file(0x4000);
    let mut table = DmaTable::default();
    table.map(map(Some(&file), 0, 0, 0x1000)).unwrap();
    let memory = table.memory_for_queue().unwrap();
    let byte = |address| memory.read_obj::<u8>(GuestAddress(address));
    assert!(byte(0).is_ok() && byte(0x8000).is_err());
    table.map(map(Some(&file), 0x2000, 0x8000, 0x1000)).unwrap();
    assert!(byte(0x8000).is_ok());
    unmap(&mut table, range(0, 0x1000));
    assert!(byte(0).is_err() && byte(0x8000).is_ok());
    let before = table.memory().unwrap();
    let other = anonymous_file(0x1000);
    table.map(map(Some(&other), 0, 0, 0x1000)).unwrap();
    assert!(!Arc::ptr_eq(&before, &table.memory().unwrap()));
    unmap(&mut table, range(0, 0x1000));
    assert_eq!(table.files.len(), 1, "a file without ranges is given up");
}

#[test]
fn memory_that_the_device_may_only_read_cannot_be_written() {
    let file = anonymous_file(0x4000);
    let mut table = DmaTable::default();
    let flags = DmaFlags::READ;
    let request = DmaMap {
        flags,
        ..map(Some(&file), 0, 0, 0x1000)
    };
    table.map(request).unwrap();
    table.map(map(Some(&file), 0x1000, 0x1000, 0x1000)).unwrap();
    let memory = table.memory().unwrap();
    assert_eq!(memory.read_obj::<u8>(GuestAddress(0)).unwrap(), 0);
    assert!(memory.write_obj(1u8, GuestAddress(0)).is_err());
    assert!(memory.write_obj(1u8, GuestAddress(0x1000)).is_ok());
}

#[test]
fn a_file_that_is_open_for_reading_is_not_written() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("memory");
    std::fs::write(&path, [7; 0x1000]).unwrap();
    let writable = File::options().read(true).write(true).open(&path).unwrap();
    let file = File::open(&path).unwrap();
    let mut table = DmaTable::default();
    table.map(map(Some(&writable), 0, 0x1000, 0x1000)).unwrap();
    assert_eq!(
        table.map(map(Some(&file), 0, 0, 0x1000)),
        Err(Errno::ACCESS)
    );
    let flags = DmaFlags::READ;
    table
        .map(DmaMap {
            flags,
            ..map(Some(&file), 0, 0, 0x1000)
        })
        .unwrap();
    let memory = table.memory().unwrap();
    assert_eq!(memory.read_obj::<u8>(GuestAddress(0)).unwrap(), 7);
}
