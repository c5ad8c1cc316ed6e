use super::*;
use crate::request::{Request, Status};
use virtio::Queue;
use virtio::test_utils::{DriverRing, memory};
use vm_memory::{Bytes, GuestAddress};

const DISK: u64 = MAX_RANGE_SECTORS as u64 + 64;

const LIMITS: Limits = Limits {
    size: DISK * SECTOR_SIZE,
    read_only: false,
    logical_block: 512,
    discard: true,
    write_zeroes: true,
    secure_erase: true,
};

const KINDS: [u32; 3] = [
    VIRTIO_BLK_T_DISCARD,
    VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_T_SECURE_ERASE,
];

/// Parses a request with these ranges, without the last `cut` bytes of the ranges, and with `input`
/// writable bytes before the status. Each range is (first sector, number of sectors, flags).
fn parse_cut(
    limits: &Limits,
    kind: u32,
    segments: &[(u64, u32, u32)],
    cut: u32,
    input: u32,
) -> Result<Request, BlockRefusal> {
    let memory = memory(0x10_0000);
    let mut bytes = vec![0xee; 16];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    for (sector, sectors, flags) in segments {
        bytes.extend_from_slice(&sector.to_le_bytes());
        bytes.extend_from_slice(&sectors.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
    }
    memory.write_slice(&bytes, GuestAddress(0x4000)).unwrap();
    let mut ring = DriverRing::new(memory.clone(), 0x1000, 32);
    let mut queue = Queue::new(memory.clone(), ring.layout(), 0, 0).unwrap();
    let len = bytes.len() as u32 - cut;
    ring.add(&[(0x4000, len, false), (0x8_0000, input + 1, true)]);
    let mut chain = Chain::default();
    assert!(queue.pop(&mut chain).unwrap());
    Request::parse(&chain, &memory, limits)
}

fn parse(kind: u32, segments: &[(u64, u32, u32)]) -> Result<Request, BlockRefusal> {
    parse_cut(&LIMITS, kind, segments, 0, 0)
}

fn changed(sector: u64, sectors: u64, unmap: bool) -> ChangedRange {
    let range = Range {
        offset: sector * SECTOR_SIZE,
        len: sectors * SECTOR_SIZE,
    };
    ChangedRange { range, unmap }
}

#[test]
fn ranges_keep_their_order_and_empty_ones_are_left_out() {
    for kind in KINDS {
        let request = parse(kind, &[(9, 2, 0), (0, 0, 0), (DISK - 1, 1, 0)]);
        let ranges = vec![changed(9, 2, false), changed(DISK - 1, 1, false)];
        let change = Change::of(kind).unwrap();
        assert_eq!(request, Ok(Request::Change(change, ranges)));
    }
    let request = parse(VIRTIO_BLK_T_WRITE_ZEROES, &[(1, 1, 1), (2, 1, 0)]);
    let ranges = vec![changed(1, 1, true), changed(2, 1, false)];
    assert_eq!(request, Ok(Request::Change(Change::WriteZeroes, ranges)));
}

#[test]
fn flags_of_other_request_types_are_unsupported() {
    for kind in KINDS {
        for flags in [1, 2, 3, 0x8000_0000] {
            if kind == VIRTIO_BLK_T_WRITE_ZEROES && flags == 1 {
                continue;
            }
            let refusal = parse(kind, &[(0, 1, 0), (1, 1, flags)]).unwrap_err();
            assert_eq!(refusal, BlockRefusal::Flags(flags));
            assert_eq!(refusal.status(), Status::Unsupported);
        }
    }
}

#[test]
fn a_change_that_is_not_offered_is_unsupported() {
    let limits = Limits {
        discard: false,
        write_zeroes: false,
        secure_erase: false,
        ..LIMITS
    };
    for kind in KINDS {
        let refusal = parse_cut(&limits, kind, &[(0, 1, 0)], 0, 0).unwrap_err();
        assert_eq!(refusal, BlockRefusal::Unsupported(kind));
    }
}

#[test]
fn ranges_outside_of_the_disk_or_too_long_are_refused() {
    for kind in KINDS {
        for (sector, sectors) in [(DISK, 1), (DISK - 1, 2), (u64::MAX, 1), (u64::MAX / 512, 9)] {
            let refusal = parse(kind, &[(0, 1, 0), (sector, sectors, 0)]).unwrap_err();
            assert!(
                matches!(refusal, BlockRefusal::OutOfRange { .. }),
                "{refusal}"
            );
        }
        assert!(parse(kind, &[(0, MAX_RANGE_SECTORS, 0)]).is_ok());
        let too_long = parse(kind, &[(0, MAX_RANGE_SECTORS + 1, 0)]);
        assert_eq!(
            too_long,
            Err(BlockRefusal::RangeTooLong(MAX_RANGE_SECTORS + 1))
        );
    }
}

#[test]
fn lists_that_are_empty_cut_or_too_long_are_refused() {
    for kind in KINDS {
        let full = vec![(0, 1, 0); MAX_RANGES as usize];
        assert!(parse(kind, &full).is_ok());
        let long = [full, vec![(0, 1, 0)]].concat();
        for (segments, cut) in [(&long[..], 0), (&[], 0), (&long[..1], 1), (&long[..2], 8)] {
            let refusal = parse_cut(&LIMITS, kind, segments, cut, 0).unwrap_err();
            assert!(matches!(refusal, BlockRefusal::RangeList(_)), "{refusal}");
        }
        let refusal = parse_cut(&LIMITS, kind, &[(0, 1, 0)], 0, 512);
        assert_eq!(refusal, Err(BlockRefusal::Direction));
    }
}

#[test]
fn ranges_that_are_not_whole_blocks_are_refused() {
    let limits = Limits {
        logical_block: 4096,
        ..LIMITS
    };
    for kind in KINDS {
        let parse = |sector, sectors| parse_cut(&limits, kind, &[(sector, sectors, 0)], 0, 0);
        assert!(parse(8, 16).is_ok());
        assert_eq!(parse(4, 8), Err(BlockRefusal::Misaligned(4096)));
        assert_eq!(parse(8, 4), Err(BlockRefusal::Misaligned(4096)));
    }
}
