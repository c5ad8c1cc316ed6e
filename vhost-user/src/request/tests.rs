use std::iter::repeat_n;

use super::*;
use crate::message::{HEADER_SIZE, Reply};
use crate::test_bytes::hex;
use proptest::prelude::*;

/// Decodes a request from bytes, with the number of descriptors that the request needs.
fn decode(bytes: &[u8]) -> Result<Request<Absent>, RequestError> {
    let message = Message::decode(bytes).unwrap();
    let brings = message
        .head
        .kind()
        .map_or(Brings::Nothing, |kind| kind.brings);
    let (count, _) = brings.count(&message.payload);
    Request::decode(&message, vec![Absent; count.min(MAX_REGIONS)])
}

fn state(index: u32, num: u32) -> VringState {
    VringState { index, num }
}

/// Compares requests with the bytes of their messages.
#[test]
fn requests_have_the_bytes_that_the_protocol_gives_them() {
    let vectors: Vec<(Request<Absent>, &str)> = vec![
        (Request::GetFeatures, "01 00 00 00|01 00 00 00|00 00 00 00"),
        (
            Request::SetFeatures(0x1_7000_1244),
            "02 00 00 00|01 00 00 00|08 00 00 00||44 12 00 70 01 00 00 00",
        ),
        (Request::SetOwner, "03 00 00 00|01 00 00 00|00 00 00 00"),
        (
            Request::GetProtocolFeatures,
            "0f 00 00 00|01 00 00 00|00 00 00 00",
        ),
        (
            Request::SetProtocolFeatures(ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK),
            "10 00 00 00|01 00 00 00|08 00 00 00||09 00 00 00 00 00 00 00",
        ),
        (Request::GetQueueNum, "11 00 00 00|01 00 00 00|00 00 00 00"),
        (
            Request::SetVringNum(state(0, 256)),
            "08 00 00 00|01 00 00 00|08 00 00 00||00 00 00 00 00 01 00 00",
        ),
        (
            Request::SetVringBase(state(0, 0)),
            "0a 00 00 00|01 00 00 00|08 00 00 00||00 00 00 00 00 00 00 00",
        ),
        (
            Request::SetVringEnable(state(0, 1)),
            "12 00 00 00|01 00 00 00|08 00 00 00||00 00 00 00 01 00 00 00",
        ),
        (
            Request::GetVringBase(state(0, 0)),
            "0b 00 00 00|01 00 00 00|08 00 00 00||00 00 00 00 00 00 00 00",
        ),
        (
            Request::GetConfig(ConfigAccess::read(0, 8)),
            "18 00 00 00|01 00 00 00|14 00 00 00||00 00 00 00 08 00 00 00 00 00 00 00 \
             00 00 00 00 00 00 00 00",
        ),
        (
            Request::SetVringKick(VringFd {
                index: 1,
                fd: Some(Absent),
            }),
            "0c 00 00 00|01 00 00 00|08 00 00 00||01 00 00 00 00 00 00 00",
        ),
        (
            Request::SetVringKick(VringFd { index: 0, fd: None }),
            "0c 00 00 00|01 00 00 00|08 00 00 00||00 01 00 00 00 00 00 00",
        ),
        (
            Request::SetVringCall(VringFd { index: 1, fd: None }),
            "0d 00 00 00|01 00 00 00|08 00 00 00||01 01 00 00 00 00 00 00",
        ),
        (
            Request::SetVringErr(VringFd {
                index: 0,
                fd: Some(Absent),
            }),
            "0e 00 00 00|01 00 00 00|08 00 00 00||00 00 00 00 00 00 00 00",
        ),
        (
            Request::SetBackEndReqFd(Absent),
            "15 00 00 00|01 00 00 00|00 00 00 00",
        ),
        (
            Request::SetVringAddr(VringAddr {
                index: 0,
                flags: 0,
                desc: 0x7f00_0100_0000,
                used: 0x7f00_0100_1240,
                avail: 0x7f00_0100_1000,
                log: 0,
            }),
            "09 00 00 00 01 00 00 00 28 00 00 00 00 00 00 00 \
             00 00 00 00 00 00 00 01 00 7f 00 00 40 12 00 01 \
             00 7f 00 00 00 10 00 01 00 7f 00 00 00 00 00 00 \
             00 00 00 00",
        ),
        (
            Request::SetMemTable(table()),
            "05 00 00 00 01 00 00 00 48 00 00 00 02 00 00 00 \
             00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 80 \
             00 00 00 00 00 00 00 00 00 7f 00 00 00 00 00 00 \
             00 00 00 00 00 00 00 00 01 00 00 00 00 00 00 40 \
             00 00 00 00 00 00 00 80 00 7f 00 00 00 00 00 80 \
             00 00 00 00",
        ),
        (
            Request::AddMemReg(MemoryTable::new(vec![region(Absent)]).unwrap()),
            "25 00 00 00 01 00 00 00 28 00 00 00 00 00 00 00 \
             00 00 00 00 00 00 00 00 02 00 00 00 00 00 00 08 \
             00 00 00 00 00 00 00 00 10 7f 00 00 00 00 00 00 \
             00 00 00 00",
        ),
        (
            Request::RemMemReg(region(())),
            "26 00 00 00 01 00 00 00 28 00 00 00 00 00 00 00 \
             00 00 00 00 00 00 00 00 02 00 00 00 00 00 00 08 \
             00 00 00 00 00 00 00 00 10 7f 00 00 00 00 00 00 \
             00 00 00 00",
        ),
    ];
    for (request, bytes) in vectors {
        let decoded = decode(&hex(bytes)).unwrap();
        assert_eq!(format!("{decoded:?}"), format!("{request:?}"));
        let (message, _) = request.encode();
        assert_eq!(message.encode(), hex(bytes), "{decoded:?}");
    }
}

fn table() -> MemoryTable<Absent> {
    let low = MemoryRegion {
        guest_addr: 0,
        size: 0x8000_0000,
        user_addr: 0x7f00_0000_0000,
        file_offset: 0,
        memory: Absent,
    };
    let high = MemoryRegion {
        guest_addr: 0x1_0000_0000,
        size: 0x4000_0000,
        user_addr: 0x7f00_8000_0000,
        file_offset: 0x8000_0000,
        memory: Absent,
    };
    MemoryTable::new(vec![low, high]).unwrap()
}

fn region<M>(memory: M) -> MemoryRegion<M> {
    MemoryRegion {
        guest_addr: 0x2_0000_0000,
        size: 0x800_0000,
        user_addr: 0x7f10_0000_0000,
        file_offset: 0,
        memory,
    }
}

#[test]
fn replies_have_the_bytes_that_the_protocol_gives_them() {
    let capacity = ConfigAccess::write(0, &0x20_0000u64.to_le_bytes());
    let vectors: Vec<(Request<Absent>, Reply, &str)> = vec![
        (
            Request::GetFeatures,
            Reply::number(0x1_7000_1244),
            "01 00 00 00|05 00 00 00|08 00 00 00||44 12 00 70 01 00 00 00",
        ),
        (
            Request::GetProtocolFeatures,
            Reply::number(0x209),
            "0f 00 00 00|05 00 00 00|08 00 00 00||09 02 00 00 00 00 00 00",
        ),
        (
            Request::GetVringBase(state(0, 0)),
            Reply::bytes(state(0, 5).encode()),
            "0b 00 00 00|05 00 00 00|08 00 00 00||00 00 00 00 05 00 00 00",
        ),
        (
            Request::GetConfig(ConfigAccess::read(0, 8)),
            Reply::bytes(capacity.encode()),
            "18 00 00 00|05 00 00 00|14 00 00 00||00 00 00 00 08 00 00 00 00 00 00 00 \
             00 00 20 00 00 00 00 00",
        ),
    ];
    for (request, reply, bytes) in vectors {
        let (message, _) = request.encode();
        assert_eq!(message.head.reply(&reply.payload).encode(), hex(bytes));
    }
}

#[test]
fn back_ends_say_that_the_configuration_changed() {
    let change = BackEndRequest::ConfigChange.encode();
    assert_eq!(change.encode(), hex("02 00 00 00|01 00 00 00|00 00 00 00"));
    let decoded = BackEndRequest::decode(&change).unwrap();
    assert_eq!(decoded, Some(BackEndRequest::ConfigChange));
    assert!(BackEndRequest::decode(&change.head.reply(&[])).is_err());
    let other = Message::request(BackEndCode::VRING_CALL.number(), &[]);
    assert_eq!(BackEndRequest::decode(&other).unwrap(), None);
}

#[test]
fn payloads_of_a_wrong_length_are_refused() {
    for code in (1..=44).filter_map(Code::from_number) {
        // Only raw requests accept a payload of any length, because this crate does not decode
        // their payloads.
        let known = decode(&Message::request(code.number(), &[0; 9]).encode());
        if let Ok(request) = known {
            assert!(matches!(request, Request::Raw { .. }), "{code:?}");
        }
    }
}

#[test]
fn wrong_memory_tables_are_refused() {
    let (message, _) = Request::<Absent>::SetMemTable(table()).encode();
    let with = |payload: &[u8], count| {
        let message = Message::request(message.head.request, payload);
        Request::decode(&message, repeat_n(Absent, count).collect())
    };
    let payload = &message.payload;
    assert!(with(payload, 2).is_ok());
    assert!(with(payload, 1).is_err(), "a descriptor is missing");
    assert!(with(payload, 3).is_err(), "a descriptor too many");
    assert!(with(&payload[..71], 2).is_err(), "cut off");
    assert!(with(&payload[..40], 2).is_err(), "one region of two");
    assert!(with(&[0; 8], 0).is_err(), "no region");
    assert!(with(&[], 0).is_err());
    let mut many = payload.clone();
    many[0] = 33;
    assert!(with(&many, 33).is_err(), "more than any message may bring");
    let mut twice = payload.clone();
    twice.copy_within(8..40, 40);
    let error = with(&twice, 2).unwrap_err();
    assert!(matches!(error, RequestError::Memory(_)), "{error}");
}

#[test]
fn requests_of_no_use_without_descriptors_are_refused_where_they_stay_behind() {
    let mut by = AsTheyAre(PhantomData);
    for code in (1..=44).filter_map(Code::from_number) {
        let message = Message::request(code.number(), &[0; 8]);
        let refused = matches!(
            Request::attach_absent(&message, &mut by),
            Err(RequestError::WithoutDescriptors)
        );
        assert_eq!(refused, !code.kind().without_descriptors, "{code:?}");
    }
    let unknown = Message::request(200, &[1, 2, 3]);
    let request = Request::attach_absent(&unknown, &mut by).unwrap();
    assert!(matches!(request, Request::Raw { number: 200, .. }));
}

/// Clears the padding between the fields of a payload.
fn without_padding(code: Option<Code>, bytes: &mut [u8]) {
    let padding = match code {
        Some(Code::SET_MEM_TABLE) => 4..8,
        Some(Code::ADD_MEM_REG | Code::REM_MEM_REG) => 0..8,
        Some(Code::SET_VRING_KICK | Code::SET_VRING_CALL | Code::SET_VRING_ERR) => {
            bytes[HEADER_SIZE + 1] &= 1;
            2..8
        }
        _ => return,
    };
    bytes[HEADER_SIZE..][padding].fill(0);
}

/// Payloads, many of which have the length and the counts of a valid request.
fn payloads() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => Just(0u8), 1 => Just(1), 1 => any::<u8>()];
    let lengths = prop_oneof![Just(0usize), Just(8), Just(40), Just(72), 0usize..80];
    lengths.prop_flat_map(move |len| prop::collection::vec(byte.clone(), len))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn any_message_is_an_error_or_a_request_with_the_same_bytes(
        number in 0u32..48,
        payload in payloads(),
        fds in 0usize..3,
    ) {
        let message = Message::request(number, &payload);
        if let Ok(request) = Request::decode(&message, vec![Absent; fds]) {
            let optional = matches!(request, Request::RemMemReg(_));
            let (again, brought) = request.encode();
            let mut expected = message.encode();
            without_padding(Code::from_number(number), &mut expected);
            prop_assert_eq!(again.encode(), expected);
            prop_assert!(optional || brought.len() == fds);
        }
    }
}
