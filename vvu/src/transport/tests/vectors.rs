//! Test vectors for messages, as bytes in the buffers of the device.

use super::*;

/// Parses bytes written as hexadecimal digits. Other characters are ignored.
fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter(char::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2).map(|pair| pair.iter().collect::<String>());
    pairs
        .map(|pair| u8::from_str_radix(&pair, 16).unwrap())
        .collect()
}

/// Each entry has the bytes of a request. If the request has a reply, the entry also has the
/// payload of the reply and all bytes of the reply.
const EXCHANGES: [(&str, Option<(&str, &str)>); 7] = [
    (
        "01 00 00 00|01 00 00 00|00 00 00 00",
        Some((
            "44 12 00 70 01 00 00 00",
            "01 00 00 00|05 00 00 00|08 00 00 00||44 12 00 70 01 00 00 00",
        )),
    ),
    (
        "02 00 00 00|01 00 00 00|08 00 00 00||44 12 00 70 01 00 00 00",
        None,
    ),
    ("03 00 00 00|01 00 00 00|00 00 00 00", None),
    (
        "0f 00 00 00|01 00 00 00|00 00 00 00",
        Some((
            "09 02 00 00 00 00 00 00",
            "0f 00 00 00|05 00 00 00|08 00 00 00||09 02 00 00 00 00 00 00",
        )),
    ),
    (
        "11 00 00 00|01 00 00 00|00 00 00 00",
        Some((
            "04 00 00 00 00 00 00 00",
            "11 00 00 00|05 00 00 00|08 00 00 00||04 00 00 00 00 00 00 00",
        )),
    ),
    (
        "0b 00 00 00|01 00 00 00|08 00 00 00||00 00 00 00 00 00 00 00",
        Some((
            "00 00 00 00 05 00 00 00",
            "0b 00 00 00|05 00 00 00|08 00 00 00||00 00 00 00 05 00 00 00",
        )),
    ),
    (
        "18 00 00 00|01 00 00 00|14 00 00 00||00 00 00 00 08 00 00 00 00 00 00 00 \
         00 00 00 00 00 00 00 00",
        Some((
            "00 00 00 00 08 00 00 00 00 00 00 00 00 00 20 00 00 00 00 00",
            "18 00 00 00|05 00 00 00|14 00 00 00||00 00 00 00 08 00 00 00 00 00 00 00 \
             00 00 20 00 00 00 00 00",
        )),
    ),
];

#[test]
fn requests_and_replies_are_one_buffer_each() {
    for profile in [Profile::ours(), Profile::qemu(), Profile::crosvm()] {
        let mut setup = Setup::new(profile, IMPATIENT);
        for (request, reply) in EXCHANGES {
            setup.mock.state().deliver(&bytes(request));
            let message = Message::decode(&bytes(request)).unwrap();
            assert_eq!(setup.request().head, message.head);
            let Some((payload, expected)) = reply else {
                continue;
            };
            setup.reply(&message, &bytes(payload));
            assert_eq!(setup.mock.state().sent.pop(), Some(bytes(expected)));
        }
    }
}

#[test]
fn the_memory_table_of_two_regions_is_mapped() {
    let table = bytes(
        "05 00 00 00 09 00 00 00 48 00 00 00 02 00 00 00
         00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 80
         00 00 00 00 00 00 00 00 00 7f 00 00 00 00 00 00
         00 00 00 00 00 00 00 00 01 00 00 00 00 00 00 40
         00 00 00 00 00 00 00 80 00 7f 00 00 00 00 00 80
         00 00 00 00",
    );
    for (profile, places) in [
        (Profile::qemu(), [0x3000, 0x1_0000_3000]),
        (Profile::crosvm(), [0, 0x8000_0000]),
    ] {
        let mut setup = Setup::new(profile, IMPATIENT);
        setup.mock.state().deliver(&table);
        let incoming = setup.request();
        assert!(incoming.head.needs_reply());
        let Ok(Request::SetMemTable(table)) = incoming.request else {
            panic!("no memory");
        };
        let regions = table.regions();
        let starts = [0, 1].map(|i| regions[i].memory.file_offset().unwrap().start());
        assert_eq!(starts, places);
        assert_eq!(regions[1].memory.start_addr().0, 0x1_0000_0000);
        let ack = bytes("05 00 00 00 05 00 00 00 08 00 00 00 00 00 00 00 00 00 00 00");
        let acknowledged = setup.transport.reply(incoming.head, Reply::ack(true));
        acknowledged.unwrap();
        assert_eq!(setup.mock.state().sent.pop(), Some(ack));
    }
}

#[test]
fn single_memory_regions_do_not_cross() {
    let mut setup = Setup::ours();
    setup.mock.state().deliver(&bytes(
        "25 00 00 00 09 00 00 00 28 00 00 00 00 00 00 00
         00 00 00 00 00 00 00 00 02 00 00 00 00 00 00 08
         00 00 00 00 00 00 00 00 10 7f 00 00 00 00 00 00
         00 00 00 00",
    ));
    let error = setup.request().request.unwrap_err();
    assert!(matches!(error, RequestError::WithoutDescriptors), "{error}");
}

#[test]
fn crosvms_disconnect_marker_is_understood_in_whatever_buffer() {
    let mut setup = Setup::new(Profile::crosvm(), IMPATIENT);
    setup.mock.state().lie_in_ring(vvu_abi::queue::RX, 7, 0, 1);
    setup.assert_left();
    setup.assert_serves_the_next();
}
