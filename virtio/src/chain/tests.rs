use super::*;
use crate::test_utils::memory;
use vm_memory::Bytes;

fn segments(parts: &[(u64, u32)]) -> Segments {
    let mut segments = Segments::default();
    for &(addr, len) in parts {
        segments.push(Segment::new(addr, len));
    }
    segments
}

#[test]
fn reads_and_writes_go_over_the_ends_of_segments() {
    let memory = memory(0x4000);
    let parts = segments(&[(0x100, 3), (0x200, 0), (0x300, 1), (0x400, 10)]);
    assert_eq!(parts.len(), 14);
    parts.write(&memory, 2, b"abcdef").unwrap();
    assert_eq!(memory.read_obj::<u8>(GuestAddress(0x102)).unwrap(), b'a');
    assert_eq!(memory.read_obj::<u8>(GuestAddress(0x300)).unwrap(), b'b');
    let mut back = [0; 6];
    parts.read(&memory, 2, &mut back).unwrap();
    assert_eq!(&back, b"abcdef");
}

#[test]
fn bytes_beyond_the_end_of_a_sequence_are_an_error() {
    let memory = memory(0x4000);
    let parts = segments(&[(0x100, 3)]);
    assert!(parts.write(&memory, 1, b"abc").is_err());
    assert!(parts.read(&memory, u64::MAX, &mut [0; 1]).is_err());
    assert!(parts.iovecs(&memory, 0, 4, &mut Vec::new()).is_err());
}

#[test]
fn addresses_outside_memory_are_errors() {
    let memory = memory(0x4000);
    for addr in [0x3fff, 0x4000, u64::MAX, u64::MAX - 1] {
        let parts = segments(&[(addr, 2)]);
        assert!(parts.read(&memory, 0, &mut [0; 2]).is_err(), "{addr:#x}");
        assert!(
            parts.iovecs(&memory, 0, 2, &mut Vec::new()).is_err(),
            "{addr:#x}"
        );
    }
}

#[test]
fn each_range_has_its_bytes_in_order() {
    for lengths in (0..64u32).map(|n| [n % 4, n / 4 % 4, n / 16]) {
        let parts = [0x100, 0x200, 0x300].iter().zip(lengths);
        let parts: Vec<_> = parts.map(|(&addr, len)| (addr, len)).collect();
        let bytes = |addr, len| addr..addr + u64::from(len);
        let all = parts.iter().flat_map(|&(addr, len)| bytes(addr, len));
        let all: Vec<_> = all.collect();
        let segments = segments(&parts);
        for (offset, len) in (0..11usize).flat_map(|o| (0..11usize).map(move |l| (o, l))) {
            let expected: Vec<_> = all.iter().copied().skip(offset).take(len).collect();
            let range = segments.range(offset as u64, len as u64);
            let found: Vec<_> = range.flat_map(|s| bytes(s.addr.0, s.len)).collect();
            assert_eq!(found, expected, "{len} bytes at {offset} of {lengths:?}");
        }
    }
}

#[test]
fn a_copy_has_the_same_bytes_and_the_room_of_the_one_before() {
    let mut copy = Segments::default();
    copy.copy(&segments(&[(0x100, 3), (0x200, 4)]));
    let room = copy.segments.as_ptr();
    let other = segments(&[(0x300, 5), (0x400, 6)]);
    copy.copy(&other);
    assert_eq!((copy.len(), copy.segments.as_ptr()), (11, room));
    assert!(copy.range(0, 11).eq(other.range(0, 11)));
}

#[test]
fn lists_give_memory_back_that_few_requests_need() {
    let mut list = Vec::with_capacity(100_000);
    list.push(1);
    clear(&mut list);
    assert!(list.is_empty());
    assert!(list.capacity() <= 256);
    list.reserve_exact(10);
    let capacity = list.capacity();
    clear(&mut list);
    assert_eq!(
        list.capacity(),
        capacity,
        "no allocation for usual requests"
    );
}

#[test]
fn iovecs_cover_exactly_the_range() {
    let memory = memory(0x4000);
    let parts = segments(&[(0x100, 16), (0x300, 16)]);
    let mut iovecs = Vec::new();
    parts.iovecs(&memory, 8, 16, &mut iovecs).unwrap();
    let lengths: Vec<_> = iovecs.iter().map(|v| v.iov_len).collect();
    assert_eq!(lengths, [8, 8]);
}
