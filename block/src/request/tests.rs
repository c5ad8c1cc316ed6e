use super::*;
use std::sync::Arc;
use virtio::Queue;
use virtio::test_utils::{DriverRing, memory};
use vm_memory::{Bytes, GuestAddress};

const LIMITS: Limits = Limits {
    size: 64 * SECTOR_SIZE,
    read_only: false,
    logical_block: 512,
    discard: true,
    write_zeroes: true,
    secure_erase: true,
};

const HEADER: u64 = 0x4000;

fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut bytes = [0xee; 16];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[8..].copy_from_slice(&sector.to_le_bytes());
    bytes
}

/// Parses a request with this header at [`HEADER`] and these (address, length, writable?) buffers.
fn parse_buffers(
    limits: Limits,
    header: [u8; 16],
    buffers: &[(u64, u32, bool)],
) -> Result<Request, BlockRefusal> {
    let memory: Arc<GuestMemory> = memory(0x10_0000);
    memory.write_slice(&header, GuestAddress(HEADER)).unwrap();
    let mut ring = DriverRing::new(memory.clone(), 0x1000, 32);
    let mut queue = Queue::new(memory.clone(), ring.layout(), 0, 0).unwrap();
    ring.add(buffers);
    let mut chain = Chain::default();
    assert!(queue.pop(&mut chain).unwrap());
    Request::parse(&chain, &memory, &limits)
}

/// Parses a request with `out` readable and `in` writable bytes of data.
fn parse(
    limits: Limits,
    kind: u32,
    sector: u64,
    out: u32,
    r#in: u32,
) -> Result<Request, BlockRefusal> {
    let buffers = [(HEADER, 16 + out, false), (0x8_0000, r#in + 1, true)];
    parse_buffers(limits, header(kind, sector), &buffers)
}

fn range(sector: u64, sectors: u64) -> Range {
    Range {
        offset: sector * SECTOR_SIZE,
        len: sectors * SECTOR_SIZE,
    }
}

#[test]
fn each_known_type_is_parsed() {
    let ok = |kind, out, r#in| parse(LIMITS, kind, 3, out, r#in).unwrap();
    assert_eq!(ok(VIRTIO_BLK_T_IN, 0, 1024), Request::Read(range(3, 2)));
    assert_eq!(ok(VIRTIO_BLK_T_OUT, 512, 0), Request::Write(range(3, 1)));
    assert_eq!(ok(VIRTIO_BLK_T_FLUSH, 0, 0), Request::Flush);
    assert_eq!(ok(VIRTIO_BLK_T_GET_ID, 0, 20), Request::GetId { len: 20 });
    assert_eq!(ok(VIRTIO_BLK_T_GET_ID, 0, 512), Request::GetId { len: 20 });
    assert_eq!(ok(VIRTIO_BLK_T_GET_ID, 0, 7), Request::GetId { len: 7 });
}

#[test]
fn every_other_type_is_unsupported() {
    // The types 15 to 26 are for zoned devices.
    for kind in [2, 3, 5, 15, 16, 18, 26, 0x8000_0000, u32::MAX] {
        let refusal = parse(LIMITS, kind, 0, 0, 0).unwrap_err();
        assert_eq!(refusal, BlockRefusal::Unsupported(kind));
        assert_eq!(refusal.status(), Status::Unsupported);
    }
}

#[test]
fn requests_outside_of_the_disk_are_refused() {
    let read = |sector, len| parse(LIMITS, VIRTIO_BLK_T_IN, sector, 0, len);
    assert_eq!(read(0, 64 * 512), Ok(Request::Read(range(0, 64))));
    assert_eq!(read(63, 512), Ok(Request::Read(range(63, 1))));
    assert_eq!(read(64, 0), Ok(Request::Read(range(64, 0))));
    for (sector, len) in [
        (63, 1024),
        (64, 512),
        (65, 0),
        (u64::MAX, 512),
        (u64::MAX / 512, 512),
        (u64::MAX / 512 + 1, 512),
    ] {
        let refusal = read(sector, len).unwrap_err();
        let len = len.into();
        assert_eq!(refusal, BlockRefusal::OutOfRange { sector, len });
        assert_eq!(refusal.status(), Status::IoErr);
    }
}

#[test]
fn partial_sectors_are_refused() {
    for len in [1, 511, 513] {
        let partial = Err(BlockRefusal::PartialSector(len.into()));
        assert_eq!(parse(LIMITS, VIRTIO_BLK_T_IN, 0, 0, len), partial);
        assert_eq!(parse(LIMITS, VIRTIO_BLK_T_OUT, 0, len, 0), partial);
    }
}

#[test]
fn data_in_the_wrong_direction_is_refused() {
    for (kind, out, r#in) in [
        (VIRTIO_BLK_T_IN, 512, 0),
        (VIRTIO_BLK_T_IN, 512, 512),
        (VIRTIO_BLK_T_OUT, 0, 512),
        (VIRTIO_BLK_T_OUT, 512, 1),
        (VIRTIO_BLK_T_GET_ID, 20, 0),
    ] {
        assert_eq!(
            parse(LIMITS, kind, 0, out, r#in),
            Err(BlockRefusal::Direction),
            "{kind} {out} {in}"
        );
    }
}

#[test]
fn a_read_only_disk_refuses_writes_and_nothing_else() {
    let limits = Limits {
        read_only: true,
        ..LIMITS
    };
    let parse = |kind, out, r#in| parse(limits, kind, 0, out, r#in);
    assert_eq!(parse(VIRTIO_BLK_T_OUT, 512, 0), Err(BlockRefusal::ReadOnly));
    assert_eq!(
        parse(VIRTIO_BLK_T_IN, 0, 512),
        Ok(Request::Read(range(0, 1)))
    );
    assert_eq!(parse(VIRTIO_BLK_T_FLUSH, 0, 0), Ok(Request::Flush));
}

#[test]
fn chains_without_a_whole_header_or_status_are_refused() {
    let header = header(VIRTIO_BLK_T_FLUSH, 0);
    let parse = |buffers: &[_]| parse_buffers(LIMITS, header, buffers);
    let status = (0x8_0000, 1, true);
    assert_eq!(
        parse(&[(HEADER, 16, false), status]),
        Ok(Request::Flush),
        "a valid chain"
    );
    assert_eq!(parse(&[(HEADER, 16, false)]), Err(BlockRefusal::NoStatus));
    assert_eq!(
        parse(&[(HEADER, 16, false), (0x8_0000, 0, true)]),
        Err(BlockRefusal::NoStatus)
    );
    assert_eq!(
        parse(&[(HEADER, 15, false), status]),
        Err(BlockRefusal::ShortHeader)
    );
    assert_eq!(parse(&[status]), Err(BlockRefusal::ShortHeader));
    assert_eq!(
        parse(&[(0xffff_fff0, 16, false), status]),
        Err(BlockRefusal::OutsideMemory)
    );
}

#[test]
fn a_refusal_tells_too_many_pieces_from_memory_that_is_not_there() {
    let refusal = BlockRefusal::from(BufferError::TooManyPieces);
    let text = "the buffers are in more than 4096 pieces of memory";
    assert_eq!(refusal.to_string(), text);
    assert_eq!(refusal.status(), Status::IoErr);
}

#[test]
fn the_header_may_be_split_at_any_byte() {
    let header = header(VIRTIO_BLK_T_OUT, 5);
    for cut in 1..16 {
        let buffers = [
            (HEADER, cut, false),
            (HEADER + u64::from(cut), 528 - cut, false),
            (0x8_0000, 1, true),
        ];
        let request = parse_buffers(LIMITS, header, &buffers);
        assert_eq!(request, Ok(Request::Write(range(5, 1))), "{cut}");
    }
}
