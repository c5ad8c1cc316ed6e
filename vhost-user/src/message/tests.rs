use super::*;
use crate::table::Code;
use crate::test_bytes::hex;
use proptest::prelude::*;

#[test]
fn acknowledgements_say_zero_for_success() {
    let request = Message::request(Code::SET_MEM_TABLE.number(), &[]).needing_reply();
    assert!(request.head.needs_reply());
    for (success, bytes) in [
        (
            true,
            "05 00 00 00 05 00 00 00 08 00 00 00 00 00 00 00 00 00 00 00",
        ),
        (
            false,
            "05 00 00 00 05 00 00 00 08 00 00 00 01 00 00 00 00 00 00 00",
        ),
    ] {
        let ack = request.head.reply(&Reply::ack(success).payload);
        assert_eq!(ack.encode(), hex(bytes));
    }
}

/// Checks the answer to each kind of failed message, with and without acknowledgements.
#[test]
fn only_what_the_protocol_can_say_is_said_of_failures() {
    let failed = Reply::ack(false).payload;
    for number in 0..60 {
        let plain = Message::request(number, &[]).head;
        let asking = Message::request(number, &[]).needing_reply().head;
        let answer = |head: Head, acks| head.refusal(acks).map(|reply| reply.payload);
        let expected = match Code::from_number(number) {
            Some(Code::GET_CONFIG) => [Some(vec![]), Some(vec![]), Some(vec![])],
            Some(code) if code.kind().has_reply() => [None, None, None],
            _ => [None, None, Some(failed.clone())],
        };
        let actual = [
            answer(plain, true),
            answer(asking, false),
            answer(asking, true),
        ];
        assert_eq!(actual, expected, "{}", plain.name());
        let reply = asking.reply(&[]).head;
        assert_eq!(answer(reply, true), None, "a reply is never answered");
    }
}

#[test]
fn unknown_requests_are_named_by_their_numbers() {
    assert_eq!(Message::request(5, &[]).head.name(), "SET_MEM_TABLE");
    assert_eq!(Message::request(200, &[]).head.name(), "request 200");
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

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }
}
