use super::*;
use crate::test_utils::{DriverRing, anonymous_file, memory, swapped_pages};
use crate::{Chain, Queue};
use vm_memory::{Bytes, GuestMemory as _};

mod huge_pages;
mod lost;
mod taken_away;

#[test]
fn a_region_begins_at_its_offset_in_the_file() {
    let file = anonymous_file(0x3000);
    let low = Region::map(file.clone(), 0, GuestAddress(0), 0x3000, true).unwrap();
    let high = Region::map(file, 0x2000, GuestAddress(0x10_0000), 0x1000, true).unwrap();
    let memory = GuestMemory::from_regions(vec![low, high]).unwrap();
    memory.write_obj(0x55u8, GuestAddress(0x10_0004)).unwrap();
    assert_eq!(memory.read_obj::<u8>(GuestAddress(0x2004)).unwrap(), 0x55);
    assert!(memory.read_obj::<u8>(GuestAddress(0x3000)).is_err());
}

#[test]
fn regions_without_bytes_or_beyond_their_file_are_refused() {
    let file = anonymous_file(0x1000);
    let map = |offset, start, size| {
        Region::map(file.clone(), offset, GuestAddress(start), size, true).unwrap_err()
    };
    assert!(matches!(map(0, 0, 0), RegionError::BadRange { .. }));
    assert!(matches!(map(0, u64::MAX, 2), RegionError::BadRange { .. }));
    assert!(matches!(map(u64::MAX, 0, 2), RegionError::BadRange { .. }));
    assert!(matches!(
        map(0, 0, 0x1001),
        RegionError::FileTooShort { .. }
    ));
    assert!(matches!(
        map(0x1000, 0, 1),
        RegionError::FileTooShort { .. }
    ));
}

/// Makes two pages of memory behind a translation, and returns the memory and the translation. The
/// translation has no mappings yet.
fn translated() -> (GuestMemory, Arc<Translation>) {
    let translation = Arc::new(Translation::default());
    let memory = memory(0x2000).translated(translation.clone());
    (memory, translation)
}

fn mapping(target: u64, size: u64, access: Permissions) -> Mapping {
    Mapping {
        size,
        target: Some(GuestAddress(target)),
        access,
    }
}

#[test]
fn a_range_may_go_over_several_mappings_but_not_over_a_gap() {
    let (memory, translation) = translated();
    let both = Permissions::ReadWrite;
    translation
        .map(0x5000, mapping(0x1000, 0x1000, both))
        .unwrap();
    translation.map(0x6000, mapping(0, 0x1000, both)).unwrap();
    assert_eq!(translation.len(), 2, "no neighbours in the regions");
    let bytes: Vec<u8> = (0..64).collect();
    memory.write_slice(&bytes, GuestAddress(0x5fe0)).unwrap();
    let mut back = vec![0; 64];
    memory.read_slice(&mut back, GuestAddress(0x5fe0)).unwrap();
    assert_eq!(back, bytes);
    translation.unmap(0x6010, 0x6fff);
    let read = memory.read_slice(&mut back, GuestAddress(0x5fe0));
    assert!(read.is_err(), "half of it is gone");
    memory
        .read_slice(&mut back[..48], GuestAddress(0x5fe0))
        .unwrap();
    assert_eq!(back[..48], bytes[..48]);
}

#[test]
fn a_mapping_for_reads_is_not_written() {
    let (memory, translation) = translated();
    translation
        .map(0, mapping(0, 0x1000, Permissions::Read))
        .unwrap();
    translation
        .map(0x1000, mapping(0x1000, 0x1000, Permissions::ReadWrite))
        .unwrap();
    assert_eq!(memory.read_obj::<u8>(GuestAddress(7)).unwrap(), 0);
    assert!(memory.write_obj(1u8, GuestAddress(7)).is_err());
    assert!(memory.write_obj(1u8, GuestAddress(0x1007)).is_ok());
}

#[test]
fn a_region_ends_before_the_end_of_its_pages() {
    let file = anonymous_file(0x3000);
    let region = Region::map(file.clone(), 0x1800, GuestAddress(0x5000), 0x900, true).unwrap();
    let memory = GuestMemory::from_regions(vec![region]).unwrap();
    memory.write_obj(7u8, GuestAddress(0x5000)).unwrap();
    memory.write_obj(8u8, GuestAddress(0x58ff)).unwrap();
    for outside in [0x4fff, 0x5900, 0x5fff] {
        assert!(
            memory.write_obj(9u8, GuestAddress(outside)).is_err(),
            "{outside:#x}"
        );
    }
    assert!(!memory.check_range(GuestAddress(0x58f0), 0x11, Permissions::Read));
    let whole = Region::map(file, 0, GuestAddress(0), 0x3000, true).unwrap();
    let whole = GuestMemory::from_regions(vec![whole]).unwrap();
    let found = [0x1800, 0x20ff].map(|at| whole.read_obj::<u8>(GuestAddress(at)).unwrap());
    assert_eq!(found, [7, 8]);
}

#[test]
fn a_buffer_in_memory_for_reads_can_be_read_and_found_but_not_written() {
    let translation = Arc::new(Translation::default());
    let both = Permissions::ReadWrite;
    for (page, access) in [both, Permissions::Read, Permissions::Write]
        .into_iter()
        .enumerate()
    {
        let start = 0x1000 * page as u64;
        translation
            .map(start, mapping(start, 0x1000, access))
            .unwrap();
    }
    let memory = Arc::new(memory(0x4000).translated(translation));
    let mut ring = DriverRing::new(memory.clone(), 0, 16);
    let mut queue = Queue::new(memory.clone(), ring.layout(), 0, 0).unwrap();
    let mut chain = Chain::default();
    let mut pop = |addr| {
        ring.add(&[(addr, 8, false), (addr, 8, true)]);
        assert!(queue.pop(&mut chain).unwrap());
        let read = chain.readable.read(&memory, 0, &mut [0; 8]).is_ok();
        let written = chain.writable.write(&memory, 0, &[0; 8]).is_ok();
        // `iovecs` need not check whether the memory allows the access, because the kernel refuses
        // a forbidden access.
        let found = chain
            .writable
            .iovecs(&memory, 0, 8, &mut Vec::new())
            .is_ok();
        queue.push_used(chain.head, 0).unwrap();
        (read, written, found)
    };
    assert_eq!(pop(0x800), (true, true, true));
    assert_eq!(pop(0x1000), (true, false, true));
    assert_eq!(pop(0x2000), (false, true, true));
    assert_eq!(pop(0x3000), (false, false, false));
    assert_eq!(pop(0xffc), (true, false, true), "half of it is for reads");
    assert_eq!(pop(0x2ffc), (false, false, false), "half of it is nowhere");
}

#[test]
fn buffers_are_in_use_until_they_are_given_back() {
    let translation = Arc::new(Translation::default());
    translation
        .map(0, mapping(0, 0x4000, Permissions::ReadWrite))
        .unwrap();
    let plain = memory(0x4000);
    let mut ring = DriverRing::new(plain.clone(), 0, 16);
    let memory = Arc::new(plain.translated(translation));
    let mut queue = Queue::new(memory.clone(), ring.layout(), 0, 0).unwrap();
    ring.add(&[(0x1000, 16, false), (0x2000, 0x800, true)]);
    assert!(!memory.is_in_use(0, u64::MAX));
    let mut chain = Chain::default();
    assert!(queue.pop(&mut chain).unwrap());
    for (first, last, used) in [
        (0, 0xfff, false),
        (0x1000, 0x1000, true),
        (0x100f, 0x1fff, true),
        (0x1010, 0x1fff, false),
        (0x27ff, 0x3000, true),
        (0x2800, u64::MAX, false),
    ] {
        assert_eq!(
            memory.is_in_use(first, last),
            used,
            "{first:#x}..={last:#x}"
        );
    }
    // The driver breaks the rules of virtio: it makes the same chain available twice.
    ring.publish(chain.head);
    assert!(queue.pop(&mut chain).unwrap());
    queue.push_used(chain.head, 0).unwrap();
    assert!(memory.is_in_use(0x2000, 0x2000));
    queue.push_used(chain.head, 0).unwrap();
    assert!(!memory.is_in_use(0, u64::MAX));
}

#[test]
fn a_file_that_is_open_for_reads_can_be_mapped_for_reads() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("memory");
    std::fs::write(&path, vec![7; 0x1000]).unwrap();
    let file = Arc::new(std::fs::File::open(&path).unwrap());
    let map = |access| Region::map_for(access, file.clone(), 0, GuestAddress(0), 0x1000, true);
    assert!(map(Access::ReadWrite).is_err());
    let memory = GuestMemory::from_regions(vec![map(Access::Read).unwrap()]).unwrap();
    assert_eq!(memory.read_obj::<u8>(GuestAddress(9)).unwrap(), 7);
}
