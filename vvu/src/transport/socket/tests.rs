use super::*;
use std::io::Write;
use virtio::test_utils::anonymous_file;

/// A file descriptor that is never readable.
fn never() -> OwnedFd {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap()
}

fn connected() -> (Connection, SocketTransport) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (
        Connection::new(ours).unwrap(),
        SocketTransport::connected(theirs).unwrap(),
    )
}

/// What the transport makes of one message.
fn received(message: &Message, fds: &[BorrowedFd<'_>]) -> Result<Resource, String> {
    let (mut front, mut transport) = connected();
    front.send_with_fds(message, fds).unwrap();
    match transport.next(never().as_fd()).unwrap() {
        Event::Request(request) => request.resource.map_err(|error| error.to_string()),
        other => panic!("{other:?}"),
    }
}

fn add_region(start: u64, size: u64, user_addr: u64, offset: u64) -> Message {
    let fields = [0, start, size, user_addr, offset];
    let payload: Vec<_> = fields
        .iter()
        .flat_map(|field: &u64| field.to_le_bytes())
        .collect();
    Message::request(FrontendReq::ADD_MEM_REG, &payload)
}

fn vring_fd(code: FrontendReq, payload: u64) -> Message {
    Message::request(code, &payload.to_le_bytes())
}

#[test]
fn memory_is_mapped_with_its_own_addresses() {
    let file = anonymous_file(0x2000);
    let message = add_region(0x5000, 0x1000, 0x7000_0000, 0x1000);
    let Ok(Resource::Memory(regions)) = received(&message, &[file.as_fd()]) else {
        panic!("a region was shared");
    };
    assert_eq!(regions[0].user_addr, 0x7000_0000);
    assert_eq!(
        vm_memory::GuestMemoryRegion::start_addr(regions[0].region.as_ref()).0,
        0x5000
    );
    assert!(regions[0].region.direct_io());
}

#[test]
fn memory_that_cannot_be_is_refused() {
    let file = anonymous_file(0x1000);
    let fd = file.as_fd();
    let good = add_region(0, 0x1000, 0, 0);
    assert!(received(&good, &[fd]).is_ok());
    assert!(received(&good, &[]).is_err(), "no file");
    assert!(received(&good, &[fd, fd]).is_err(), "two files");
    assert!(
        received(&add_region(0, 0x2000, 0, 0), &[fd])
            .unwrap_err()
            .contains("share=on")
    );
    assert!(
        received(&add_region(0, 0x1000, u64::MAX, 0), &[fd]).is_err(),
        "wraps around"
    );
    let socket = never();
    assert!(
        received(&good, &[socket.as_fd()]).is_err(),
        "no file that can be mapped"
    );
}

#[test]
fn eventfds_have_to_be_as_announced() {
    let eventfd = never();
    let fd = eventfd.as_fd();
    for code in [FrontendReq::SET_VRING_KICK, FrontendReq::SET_VRING_CALL] {
        assert!(received(&vring_fd(code, 0), &[fd]).is_ok());
        assert!(received(&vring_fd(code, 0x100), &[]).is_ok());
        assert!(
            received(&vring_fd(code, 0), &[]).is_err(),
            "announced and missing"
        );
        assert!(
            received(&vring_fd(code, 0x100), &[fd]).is_err(),
            "there without being announced"
        );
        assert!(received(&vring_fd(code, 0), &[fd, fd]).is_err(), "two");
    }
    assert!(matches!(
        received(&vring_fd(FrontendReq::SET_VRING_KICK, 0x100), &[]),
        Ok(Resource::Kick(None))
    ));
}

#[test]
fn signalling_a_full_eventfd_does_not_block() {
    let flags = rustix::event::EventfdFlags::CLOEXEC;
    let eventfd = rustix::event::eventfd(0, flags).unwrap();
    rustix::io::write(&eventfd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    let message = vring_fd(FrontendReq::SET_VRING_CALL, 0);
    let Ok(Resource::Notifier(Some(call))) = received(&message, &[eventfd.as_fd()]) else {
        panic!("a call eventfd was given");
    };
    call.notify().unwrap();
}

#[test]
fn file_descriptors_that_do_not_belong_are_refused() {
    let fd = never();
    let message = Message::request(FrontendReq::GET_FEATURES, &[]);
    assert!(received(&message, &[fd.as_fd()]).is_err());
}

#[test]
fn a_front_end_that_stops_within_a_message_is_dropped() {
    let (mut peer, theirs) = UnixStream::pair().unwrap();
    let mut transport = SocketTransport::connected(theirs).unwrap();
    transport.deadline = Duration::ZERO;
    peer.write_all(&[1, 0, 0]).unwrap();
    let event = transport.next(never().as_fd()).unwrap();
    assert!(matches!(event, Event::Disconnected(Some(_))), "{event:?}");
    let event = transport.next(never().as_fd()).unwrap();
    assert!(matches!(event, Event::Closed), "{event:?}");
}

#[test]
fn front_ends_are_served_one_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vu.sock");
    let mut transport = SocketTransport::listening(Listener::bind(&path).unwrap());
    let never = never();
    for _ in 0..3 {
        let mut front = Connection::new(UnixStream::connect(&path).unwrap()).unwrap();
        let message = Message::request(FrontendReq::SET_OWNER, &[]);
        front.send(&message).unwrap();
        let event = transport.next(never.as_fd()).unwrap();
        assert!(matches!(event, Event::Request(_)), "{event:?}");
        transport.reply(&message.ack(true)).unwrap();
        assert_eq!(front.recv().unwrap().unwrap().0, message.ack(true));
        drop(front);
        let event = transport.next(never.as_fd()).unwrap();
        assert!(matches!(event, Event::Disconnected(None)), "{event:?}");
    }
}

#[test]
fn a_dropped_front_end_sees_the_end_and_the_caller_can_wake_up() {
    let (mut front, mut transport) = connected();
    transport.disconnect().unwrap();
    assert!(matches!(front.recv(), Err(ConnectionError::Closed)));
    let (_front, mut transport) = connected();
    let wake = never();
    rustix::io::write(&wake, &1u64.to_ne_bytes()).unwrap();
    assert!(matches!(
        transport.next(wake.as_fd()).unwrap(),
        Event::Woken
    ));
}

#[test]
fn a_wake_up_is_seen_between_the_messages_of_a_busy_front_end() {
    let (mut front, mut transport) = connected();
    let wake = never();
    rustix::io::write(&wake, &1u64.to_ne_bytes()).unwrap();
    front
        .send(&Message::request(FrontendReq::SET_OWNER, &[]))
        .unwrap();
    front
        .send(&Message::request(FrontendReq::SET_OWNER, &[]))
        .unwrap();
    assert!(matches!(
        transport.next(wake.as_fd()).unwrap(),
        Event::Woken
    ));
}
