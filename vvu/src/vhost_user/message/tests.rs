use super::*;
use proptest::prelude::*;
use vhost::vhost_user::message::{VhostUserVringAddr, VhostUserVringState};

const NEED_REPLY: Flags = Flags::VERSION_1.union(Flags::NEED_REPLY);

/// Bytes as the tables of the protocol's documents print them.
fn hex(text: &str) -> Vec<u8> {
    let byte = |digits: &str| u8::from_str_radix(digits, 16).unwrap();
    text.split(|c: char| !c.is_ascii_hexdigit())
        .filter(|d| !d.is_empty())
        .map(byte)
        .collect()
}

fn state(index: u32, num: u32) -> Vec<u8> {
    VhostUserVringState { index, num }.as_slice().to_vec()
}

fn with_flags(flags: Flags, message: Message) -> Message {
    Message { flags, ..message }
}

/// Requests as they are on the wire, each with what it is in our terms.
#[test]
fn requests_have_the_bytes_that_the_protocol_gives_them() {
    use FrontendReq as Req;
    let features = 0x1_7000_1244u64.to_le_bytes();
    let mut config = hex("00 00 00 00 08 00 00 00 00 00 00 00");
    config.extend([0; 8]);
    let vectors: Vec<(Req, &[u8], &str)> = vec![
        (
            Req::GET_FEATURES,
            &[],
            "01 00 00 00|01 00 00 00|00 00 00 00",
        ),
        (
            Req::SET_FEATURES,
            &features,
            "02 00 00 00|01 00 00 00|08 00 00 00||44 12 00 70 01 00 00 00",
        ),
        (Req::SET_OWNER, &[], "03 00 00 00|01 00 00 00|00 00 00 00"),
        (
            Req::GET_PROTOCOL_FEATURES,
            &[],
            "0f 00 00 00|01 00 00 00|00 00 00 00",
        ),
        (
            Req::SET_PROTOCOL_FEATURES,
            &[9, 0, 0, 0, 0, 0, 0, 0],
            "10 00 00 00|01 00 00 00|08 00 00 00||09 00 00 00 00 00 00 00",
        ),
        (
            Req::GET_QUEUE_NUM,
            &[],
            "11 00 00 00|01 00 00 00|00 00 00 00",
        ),
        (
            Req::SET_VRING_NUM,
            &[0, 0, 0, 0, 0, 1, 0, 0],
            "08 00 00 00|01 00 00 00|08 00 00 00||00 00 00 00 00 01 00 00",
        ),
        (
            Req::SET_VRING_BASE,
            &[0; 8],
            "0a 00 00 00|01 00 00 00|08 00 00 00||00 00 00 00 00 00 00 00",
        ),
        (
            Req::SET_VRING_ENABLE,
            &[0, 0, 0, 0, 1, 0, 0, 0],
            "12 00 00 00|01 00 00 00|08 00 00 00||00 00 00 00 01 00 00 00",
        ),
        (
            Req::GET_VRING_BASE,
            &[0; 8],
            "0b 00 00 00|01 00 00 00|08 00 00 00||00 00 00 00 00 00 00 00",
        ),
        (
            Req::GET_CONFIG,
            &config,
            "18 00 00 00|01 00 00 00|14 00 00 00||00 00 00 00 08 00 00 00 00 00 00 00 \
             00 00 00 00 00 00 00 00",
        ),
    ];
    for (request, payload, bytes) in vectors {
        let message = Message::request(request, payload);
        assert_eq!(message.encode(), hex(bytes), "{request:?}");
        assert_eq!(Message::decode(&hex(bytes)).unwrap(), message);
        assert_eq!(message.code(), Some(request));
    }
}

#[test]
fn replies_have_the_bytes_that_the_protocol_gives_them() {
    use FrontendReq as Req;
    let mut config = hex("00 00 00 00 08 00 00 00 00 00 00 00");
    config.extend(0x20_0000u64.to_le_bytes());
    let vectors: Vec<(Req, Vec<u8>, &str)> = vec![
        (
            Req::GET_FEATURES,
            0x1_7000_1244u64.to_le_bytes().to_vec(),
            "01 00 00 00|05 00 00 00|08 00 00 00||44 12 00 70 01 00 00 00",
        ),
        (
            Req::GET_PROTOCOL_FEATURES,
            0x209u64.to_le_bytes().to_vec(),
            "0f 00 00 00|05 00 00 00|08 00 00 00||09 02 00 00 00 00 00 00",
        ),
        (
            Req::GET_QUEUE_NUM,
            4u64.to_le_bytes().to_vec(),
            "11 00 00 00|05 00 00 00|08 00 00 00||04 00 00 00 00 00 00 00",
        ),
        (
            Req::GET_VRING_BASE,
            state(0, 5),
            "0b 00 00 00|05 00 00 00|08 00 00 00||00 00 00 00 05 00 00 00",
        ),
        (
            Req::GET_CONFIG,
            config,
            "18 00 00 00|05 00 00 00|14 00 00 00||00 00 00 00 08 00 00 00 00 00 00 00 \
             00 00 20 00 00 00 00 00",
        ),
    ];
    for (request, payload, bytes) in vectors {
        assert_eq!(
            Message::request(request, &[]).reply(&payload).encode(),
            hex(bytes)
        );
    }
}

#[test]
fn acknowledgements_say_zero_for_success() {
    let request = with_flags(
        NEED_REPLY,
        Message::request(FrontendReq::SET_MEM_TABLE, &[]),
    );
    assert!(request.needs_reply());
    let ok = "05 00 00 00 05 00 00 00 08 00 00 00 00 00 00 00 00 00 00 00";
    let failed = "05 00 00 00 05 00 00 00 08 00 00 00 01 00 00 00 00 00 00 00";
    assert_eq!(request.ack(true).encode(), hex(ok));
    assert_eq!(request.ack(false).encode(), hex(failed));
    let request = with_flags(
        NEED_REPLY,
        Message::request(FrontendReq::SET_BACKEND_REQ_FD, &[]),
    );
    assert_eq!(request.encode(), hex("15 00 00 00|09 00 00 00|00 00 00 00"));
    assert_eq!(
        request.ack(true).encode(),
        hex("15 00 00 00|05 00 00 00|08 00 00 00||00 00 00 00 00 00 00 00")
    );
}

#[test]
fn vring_fds_name_queue_and_presence() {
    let vectors = [
        (
            "0c 00 00 00|01 00 00 00|08 00 00 00||00 00 00 00 00 00 00 00",
            0,
            true,
        ),
        (
            "0c 00 00 00|01 00 00 00|08 00 00 00||01 00 00 00 00 00 00 00",
            1,
            true,
        ),
        (
            "0c 00 00 00|01 00 00 00|08 00 00 00||00 01 00 00 00 00 00 00",
            0,
            false,
        ),
        (
            "0d 00 00 00|01 00 00 00|08 00 00 00||00 00 00 00 00 00 00 00",
            0,
            true,
        ),
        (
            "0d 00 00 00|01 00 00 00|08 00 00 00||01 01 00 00 00 00 00 00",
            1,
            false,
        ),
        (
            "0e 00 00 00|01 00 00 00|08 00 00 00||00 00 00 00 00 00 00 00",
            0,
            true,
        ),
    ];
    for (bytes, queue, has_fd) in vectors {
        let message = Message::decode(&hex(bytes)).unwrap();
        assert_eq!(
            message.as_vring_fd(),
            Ok(VringFd { queue, has_fd }),
            "{bytes}"
        );
    }
}

#[test]
fn vring_addresses_are_desc_used_avail() {
    let bytes = hex("09 00 00 00 01 00 00 00 28 00 00 00 00 00 00 00 \
                     00 00 00 00 00 00 00 01 00 7f 00 00 40 12 00 01 \
                     00 7f 00 00 00 10 00 01 00 7f 00 00 00 00 00 00 \
                     00 00 00 00");
    let addr: VhostUserVringAddr = Message::decode(&bytes).unwrap().as_struct().unwrap();
    let found = (addr.descriptor, addr.used, addr.available, addr.log);
    assert_eq!(
        found,
        (0x7f00_0100_0000, 0x7f00_0100_1240, 0x7f00_0100_1000, 0)
    );
}

const MEM_TABLE: &str = "05 00 00 00 09 00 00 00 48 00 00 00 02 00 00 00 \
                         00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 80 \
                         00 00 00 00 00 00 00 00 00 7f 00 00 00 00 00 00 \
                         00 00 00 00 00 00 00 00 01 00 00 00 00 00 00 40 \
                         00 00 00 00 00 00 00 80 00 7f 00 00 00 00 00 80 \
                         00 00 00 00";

fn region_fields(region: &VhostUserMemoryRegion) -> [u64; 4] {
    [
        region.guest_phys_addr,
        region.memory_size,
        region.user_addr,
        region.mmap_offset,
    ]
}

#[test]
fn memory_tables_survive_the_round_trip() {
    let message = Message::decode(&hex(MEM_TABLE)).unwrap();
    let regions = decode_regions(&message.payload).unwrap();
    let fields: Vec<_> = regions.iter().map(region_fields).collect();
    let low = [0, 0x8000_0000, 0x7f00_0000_0000, 0];
    let high = [0x1_0000_0000, 0x4000_0000, 0x7f00_8000_0000, 0x8000_0000];
    assert_eq!(fields, [low, high]);
    assert_eq!(encode_regions(&regions), message.payload);
}

#[test]
fn single_regions_come_behind_padding() {
    let bytes = hex("25 00 00 00 09 00 00 00 28 00 00 00 00 00 00 00 \
                     00 00 00 00 00 00 00 00 02 00 00 00 00 00 00 08 \
                     00 00 00 00 00 00 00 00 10 7f 00 00 00 00 00 00 \
                     00 00 00 00");
    let region = Message::decode(&bytes).unwrap().as_single_region().unwrap();
    assert_eq!(
        region_fields(&region),
        [0x2_0000_0000, 0x800_0000, 0x7f10_0000_0000, 0]
    );
}

#[test]
fn wrong_headers_are_refused() {
    let wrong = |bytes: &str| Message::decode(&hex(bytes)).unwrap_err();
    let flags = |error| matches!(error, DecodeError::Flags { .. });
    assert!(
        flags(wrong("01 00 00 00|00 00 00 00|00 00 00 00")),
        "version 0"
    );
    assert!(
        flags(wrong("01 00 00 00|02 00 00 00|00 00 00 00")),
        "version 2"
    );
    assert!(
        flags(wrong("01 00 00 00|11 00 00 00|00 00 00 00")),
        "reserved flag"
    );
    let too_long = wrong("01 00 00 00|01 00 00 00|01 10 00 00");
    assert_eq!(
        too_long,
        DecodeError::TooLong {
            request: 1,
            size: 4097
        }
    );
    let short = wrong("01 00 00 00|01 00 00 00|08 00 00 00||00");
    assert_eq!(
        short,
        DecodeError::Length {
            expected: 20,
            actual: 13
        }
    );
    let long = wrong("01 00 00 00|01 00 00 00|00 00 00 00||00");
    assert_eq!(
        long,
        DecodeError::Length {
            expected: 12,
            actual: 13
        }
    );
    assert_eq!(
        wrong("01"),
        DecodeError::Length {
            expected: 12,
            actual: 1
        }
    );
}

#[test]
fn wrong_memory_tables_are_refused() {
    let payload = Message::decode(&hex(MEM_TABLE)).unwrap().payload;
    assert!(decode_regions(&payload[..71]).is_err(), "cut off");
    assert!(decode_regions(&payload[..40]).is_err(), "one region of two");
    assert!(decode_regions(&[0; 8]).is_err(), "no region");
    assert!(decode_regions(&[]).is_err());
    let mut huge = payload;
    huge[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(decode_regions(&huge).is_err(), "more regions than bytes");
}

#[test]
fn wrong_payloads_are_refused() {
    let message = Message::request(FrontendReq::SET_FEATURES, &[0; 7]);
    assert!(message.as_u64().is_err());
    assert!(message.as_vring_fd().is_err());
    assert!(message.as_single_region().is_err());
    assert!(message.as_struct::<VhostUserVringState>().is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
            let _ = (message.as_u64(), message.as_single_region(), message.name());
            let _ = decode_regions(&message.payload);
        }
    }
}
