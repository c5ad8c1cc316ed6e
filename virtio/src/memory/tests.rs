use super::*;
use crate::test_utils::{DriverRing, anonymous_file, memory};
use crate::{Chain, Queue};
use vm_memory::Bytes;

#[test]
fn maps_at_the_given_file_offset() {
    let file = anonymous_file(0x3000);
    let low = Region::map(file.clone(), 0, GuestAddress(0), 0x3000, true).unwrap();
    let high = Region::map(file, 0x2000, GuestAddress(0x10_0000), 0x1000, true).unwrap();
    let memory = GuestMemory::from_regions(vec![low, high]).unwrap();
    memory.write_obj(0x55u8, GuestAddress(0x10_0004)).unwrap();
    assert_eq!(memory.read_obj::<u8>(GuestAddress(0x2004)).unwrap(), 0x55);
    assert!(memory.read_obj::<u8>(GuestAddress(0x3000)).is_err());
}

#[test]
fn refuses_regions_that_cannot_be() {
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

/// Two pages of memory, seen through a translation.
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
fn translated_addresses_lead_to_pieces() {
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
fn what_may_be_read_only_is_not_written() {
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
    assert!(
        memory.locate(GuestAddress(7), 1).is_ok(),
        "the kernel refuses it"
    );
}

#[test]
fn neighbours_become_one_mapping_and_parts_stay() {
    let translation = Translation::default();
    let page = |number: u64| mapping(number << 12, 0x1000, Permissions::ReadWrite);
    for number in 0..0x100 {
        translation.map(number << 12, page(number)).unwrap();
    }
    assert_eq!(translation.len(), 1);
    translation.unmap(0x3000, 0x3fff);
    assert_eq!(translation.len(), 2);
    assert_eq!(translation.map(0x2fff, page(9)), Err(MapError::Overlap));
    assert_eq!(translation.map(0x1f_ffff, page(9)), Ok(()));
    assert_eq!(translation.map(u64::MAX, page(9)), Err(MapError::BadRange));
    translation.unmap(0, u64::MAX);
    assert!(translation.is_empty());
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
    // A driver that lies makes the same chain available twice.
    ring.publish(chain.head);
    assert!(queue.pop(&mut chain).unwrap());
    queue.push_used(chain.head, 0).unwrap();
    assert!(memory.is_in_use(0x2000, 0x2000));
    queue.push_used(chain.head, 0).unwrap();
    assert!(!memory.is_in_use(0, u64::MAX));
}

#[test]
fn files_open_for_reading_can_be_mapped_for_reading() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("memory");
    std::fs::write(&path, vec![7; 0x1000]).unwrap();
    let file = Arc::new(std::fs::File::open(&path).unwrap());
    let map = |access| Region::map_for(access, file.clone(), 0, GuestAddress(0), 0x1000, true);
    assert!(map(Access::ReadWrite).is_err());
    let memory = GuestMemory::from_regions(vec![map(Access::Read).unwrap()]).unwrap();
    assert_eq!(memory.read_obj::<u8>(GuestAddress(9)).unwrap(), 7);
}
