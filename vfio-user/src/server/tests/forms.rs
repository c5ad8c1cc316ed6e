//! Tests of commands whose payload has several forms. Each form is tested.

use super::*;

/// The request that the server decodes from a valid command.
fn request(number: Command, payload: &Payload) -> Request {
    let (mut connection, mut client) = negotiated();
    client
        .write_all(&command(number as u16, true, &payload.0))
        .unwrap();
    connection.next().unwrap().unwrap()
}

fn set_irqs(flags: u32, start: u32, count: u32, data: &[u8]) -> SetIrqs {
    let head = Payload::default().u32(20 + data.len() as u32).u32(flags);
    let payload = head.u32(index::MSIX).u32(start).u32(count).bytes(data);
    match request(Command::DeviceSetIrqs, &payload) {
        Request::SetIrqs(set) => set,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_action_can_concern_all_interrupts_or_some_or_eventfds() {
    let actions = [
        (0x08, IrqAction::Mask),
        (0x10, IrqAction::Unmask),
        (0x20, IrqAction::Trigger),
    ];
    for (flag, action) in actions {
        let all = set_irqs(flag | 1, 3, 5, &[]);
        assert_eq!((all.start, all.count, all.action), (3, 5, action));
        assert!(matches!(all.data, IrqData::None));
        let some = set_irqs(flag | 2, 1, 3, &[0, 1, 7]);
        let IrqData::Bool(chosen) = some.data else {
            panic!("{some:?}");
        };
        assert_eq!((some.action, chosen), (action, vec![false, true, true]));
        let none = set_irqs(flag | 4, 2, 2, &[]);
        let IrqData::EventFds(fds) = none.data else {
            panic!("{none:?}");
        };
        assert!(fds.len() == 2 && fds.iter().all(Option::is_none));
    }
}

#[test]
fn a_range_of_memory_or_all_of_it_can_be_taken_away() {
    let unmap = |flags, address, size| {
        let payload = Payload::default().u32(24).u32(flags);
        request(Command::DmaUnmap, &payload.u64(address).u64(size))
    };
    let Request::DmaUnmap(part) = unmap(0, 0x1000, u64::MAX) else {
        panic!("no unmap");
    };
    let (address, size) = (0x1000, u64::MAX);
    assert_eq!(part, DmaUnmap::Range { address, size });
    let Request::DmaUnmap(all) = unmap(2, 0, 0) else {
        panic!("no unmap");
    };
    assert_eq!(all, DmaUnmap::All);
}

#[test]
fn several_writes_in_a_message_are_offered_to_a_client_that_knows_them() {
    let offered = |known: bool| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(ours).unwrap();
        let version = Version {
            write_multiple: known,
            ..Version::ours()
        };
        let number = Command::Version as u16;
        let message = command(number, false, &version.encode().0);
        theirs.write_all(&message).unwrap();
        assert!(connection.next().unwrap().is_none());
        let mut header = [0; 16];
        theirs.read_exact(&mut header).unwrap();
        let mut payload = vec![0; Header::decode(&header).unwrap().1];
        theirs.read_exact(&mut payload).unwrap();
        Version::decode(&payload).unwrap().write_multiple
    };
    assert!(offered(true));
    assert!(!offered(false));
}
