//! Tests of requests that are refused, and of clients that are dropped.

use super::*;

#[test]
fn a_malformed_request_is_refused_and_ends_the_connection() {
    let set_irqs = |flags: u32, count: u32| {
        let head = Payload::default().u32(20).u32(flags).u32(2).u32(0);
        head.u32(count).0
    };
    let multi = Payload::default().u64(1).u64(0).u32(0).u32(9).u64(0).0;
    let cases: [(&str, Command, Vec<u8>); 8] = [
        ("short map", Command::DmaMap, vec![0; 31]),
        ("short unmap", Command::DmaUnmap, vec![0; 23]),
        ("short read", Command::RegionRead, vec![0; 15]),
        (
            "write without its data",
            Command::RegionWrite,
            [&[0; 12][..], &[4, 0, 0, 0]].concat(),
        ),
        ("short info", Command::DeviceGetRegionInfo, vec![0; 11]),
        (
            "bools that are not there",
            Command::DeviceSetIrqs,
            set_irqs(0x22, 4),
        ),
        ("long small write", Command::RegionWriteMulti, multi),
        (
            "second version",
            Command::Version,
            Version::ours().encode().0,
        ),
    ];
    for (what, number, payload) in cases {
        let (mut connection, mut client) = negotiated();
        client
            .write_all(&command(number as u16, false, &payload))
            .unwrap();
        assert!(
            matches!(connection.next(), Err(ServerError::Protocol(_))),
            "{what}"
        );
        assert_eq!(refusal(&mut client), Some(22), "{what}");
    }
}

#[test]
fn an_impossible_request_is_refused_and_the_connection_goes_on() {
    let map = |offset: u64, address: u64, size: u64| {
        Payload::default()
            .u32(32)
            .u32(3)
            .u64(offset)
            .u64(address)
            .u64(size)
            .0
    };
    let set_irqs = |flags: u32, start: u32, count: u32| {
        Payload::default()
            .u32(20)
            .u32(flags)
            .u32(2)
            .u32(start)
            .u32(count)
            .0
    };
    let (small, large) = (Payload::default().u32(8), Payload::default().u64(0));
    let cases: [(&str, u16, Vec<u8>, u32); 10] = [
        ("empty map", 2, map(0, 0, 0), 22),
        ("map wraps around", 2, map(0, u64::MAX, 2), 22),
        ("file offset wraps around", 2, map(u64::MAX, 0, 2), 22),
        (
            "unknown unmap",
            3,
            Payload::default().u32(24).u32(1).u64(0).u64(0).0,
            22,
        ),
        ("two actions", 8, set_irqs(0x31, 0, 1), 22),
        ("very many interrupts", 8, set_irqs(0x24, 0, u32::MAX), 22),
        ("very late interrupts", 8, set_irqs(0x24, u32::MAX, 1), 22),
        ("no room for the answer", 5, small.u32(0).u32(0).0, 22),
        ("long read", 9, large.u32(0).u32(u32::MAX).0, 22),
        ("unknown command", 14, Vec::new(), 95),
    ];
    let (mut connection, mut client) = negotiated();
    for (what, number, payload, errno) in cases {
        client.write_all(&command(number, false, &payload)).unwrap();
        assert!(connection.next().unwrap().is_none(), "{what}");
        assert_eq!(refusal(&mut client), Some(errno), "{what}");
    }
    client.write_all(&command(14, true, &[])).unwrap();
    assert!(connection.next().unwrap().is_none());
    assert_eq!(refusal(&mut client), None, "no reply wanted");
}

#[test]
fn a_command_before_the_version_ends_the_connection() {
    let (ours, mut client) = UnixStream::pair().unwrap();
    let mut connection = Connection::new(ours).unwrap();
    client.write_all(&command(13, false, &[])).unwrap();
    assert!(matches!(connection.next(), Err(ServerError::Protocol(_))));
    assert_eq!(refusal(&mut client), Some(22));
}

#[test]
fn a_client_that_stops_in_the_middle_of_a_request_is_dropped() {
    let (ours, mut client) = UnixStream::pair().unwrap();
    let mut connection = Connection::with_limit(ours, Duration::ZERO).unwrap();
    assert!(connection.next().unwrap().is_none());
    assert_eq!(connection.time_left(), None, "no request has begun");
    client.write_all(&[1]).unwrap();
    assert!(connection.next().unwrap().is_none());
    assert_eq!(connection.time_left(), Some(Duration::ZERO));
    assert!(matches!(
        connection.next(),
        Err(ServerError::Channel(ChannelError::Stream(
            StreamError::Stalled
        )))
    ));
}
