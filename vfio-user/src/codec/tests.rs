use super::*;
use proptest::prelude::*;

fn eventfd() -> Arc<SharedEventFd> {
    Arc::new(SharedEventFd::new().unwrap())
}

fn region(size: u64, areas: &[(u64, u64)]) -> RegionInfo {
    let areas = areas.iter().map(|&(offset, size)| Area { offset, size });
    RegionInfo {
        flags: RegionFlags::READ | RegionFlags::WRITE,
        size,
        offset: 0x1000,
        areas: areas.collect(),
        file: None,
    }
}

#[test]
fn areas_come_with_the_second_request_which_has_room_for_them() {
    let info = region(0x10000, &[(0, 0x1000), (0x3000, 0x2000)]);
    let first = encode_region(4, &info, REGION_INFO_SIZE).0;
    assert_eq!(first.len(), 32);
    let needed = u32::from_le_bytes(first[..4].try_into().unwrap());
    assert_eq!(first[12..16], [32, 0, 0, 0], "as QEMU wants it");
    assert_eq!(needed, 32 + 16 + 2 * 16);
    let second = encode_region(4, &info, needed).0;
    assert_eq!(second.len(), needed as usize);
    let reply = decode_region(&second).unwrap();
    assert_eq!(reply.areas, info.areas);
    assert!(reply.flags.contains(RegionFlags::MMAP));
}

#[test]
fn a_region_that_is_mapped_whole_has_no_list() {
    let bytes = encode_region(0, &region(0x2000, &[(0, 0x2000)]), 1000).0;
    assert_eq!(bytes.len(), 32);
    let reply = decode_region(&bytes).unwrap();
    assert!(reply.is_mapped_whole());
    let trapped = decode_region(&encode_region(0, &region(0x2000, &[]), 1000).0).unwrap();
    assert!(trapped.areas.is_empty());
}

#[test]
fn region_replies_that_contradict_themselves_are_refused() {
    let good = encode_region(4, &region(0x10000, &[(0, 0x1000)]), 1000).0;
    let lies: [(usize, &[u8], &str); 5] = [
        (12, &[0xff, 0xff], "capabilities outside the reply"),
        (32 + 8, &[2], "more areas than there are"),
        (32 + 8, &[0xff; 4], "very many areas"),
        (48 + 8, &[1, 0, 1], "area leaves the region"),
        (24, &[0xff; 8], "file offset overflows"),
    ];
    for (at, bytes, what) in lies {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        assert!(decode_region(&bad).is_none(), "{what}");
    }
    let mut circle = good.clone();
    circle[32..40].copy_from_slice(&[9, 0, 1, 0, 32, 0, 0, 0]);
    assert!(
        decode_region(&circle).is_none(),
        "a list of capabilities that never ends"
    );
}

#[test]
fn ioeventfds_with_the_same_eventfd_share_a_file_descriptor() {
    let (one, two) = (eventfd(), eventfd());
    let entry = |offset, eventfd: &Arc<SharedEventFd>, datamatch| IoEventFd {
        offset,
        size: 0,
        eventfd: eventfd.clone(),
        datamatch,
    };
    let entries = [
        entry(0, &one, None),
        entry(4, &two, Some(7)),
        entry(8, &one, None),
    ];
    let (payload, fds) = encode_io_fds(2, &entries, 1000, 16);
    assert_eq!((payload.0.len(), fds.len()), (16 + 3 * 40, 2));
    let owned = fds.iter().map(|fd| fd.try_clone_to_owned().unwrap());
    let back = decode_io_fds(&payload.0, owned.collect()).unwrap();
    let places: Vec<_> = back.iter().map(|e| (e.offset, e.datamatch)).collect();
    assert_eq!(places, [(0, None), (4, Some(7)), (8, None)]);
    assert!(Arc::ptr_eq(&back[0].eventfd, &back[2].eventfd));

    assert!(decode_io_fds(&payload.0, Vec::new()).is_none(), "no fds");
    let files = (0..2).map(|_| tempfile::tempfile().unwrap().into());
    let other = decode_io_fds(&payload.0, files.collect());
    assert!(other.is_none(), "not eventfds");
    let (small, fds) = encode_io_fds(2, &entries, 16, 16);
    assert_eq!((small.0.len(), fds.len()), (16, 0));
    assert_eq!(io_fds_needed(&small.0), Some(16 + 3 * 40));
    let (short, fds) = encode_io_fds(2, &entries, 1000, 1);
    assert_eq!(
        (short.0.len(), fds.len()),
        (16 + 40, 1),
        "too few fds for all"
    );
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        decode_region(&bytes);
        decode_irq(&bytes);
        decode_device(&bytes);
        decode_io_fds(&bytes, Vec::new());
    }
}
