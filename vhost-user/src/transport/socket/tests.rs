use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::*;
use crate::causes::WithCauses;
use crate::memory::{MemoryRegion, MemoryTable};
use crate::message::Message;
use crate::payload::VringFd;
use crate::resources::Attached;
use crate::table::Code;
use virtio::test_utils::anonymous_file;
use vm_memory::GuestMemoryRegion;

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

/// The request that the transport makes from one message, or the text of the error.
fn received(message: &Message, fds: &[BorrowedFd<'_>]) -> Result<Request<Attached>, String> {
    let (mut front, mut transport) = connected();
    front.send(message, fds).unwrap();
    match transport.next([never().as_fd(); 2]).unwrap() {
        Event::Request(incoming) => {
            let request = incoming.request;
            request.map_err(|error| WithCauses(&error).to_string())
        }
        other => panic!("{other:?}"),
    }
}

fn add_region(guest_addr: u64, size: u64, user_addr: u64, file_offset: u64) -> Message {
    let fields = [0, guest_addr, size, user_addr, file_offset];
    let payload: Vec<_> = fields
        .iter()
        .flat_map(|field: &u64| field.to_le_bytes())
        .collect();
    Message::request(Code::ADD_MEM_REG.number(), &payload)
}

fn vring_fd(code: Code, payload: u64) -> Message {
    Message::request(code.number(), &payload.to_le_bytes())
}

#[test]
fn memory_is_mapped_with_its_own_addresses() {
    let file = anonymous_file(0x2000);
    let message = add_region(0x5000, 0x1000, 0x7000_0000, 0x1000);
    let Ok(Request::AddMemReg(table)) = received(&message, &[file.as_fd()]) else {
        panic!("a region was shared");
    };
    let [region] = table.regions() else {
        panic!("it was one");
    };
    assert_eq!(region.user_addr, 0x7000_0000);
    assert_eq!(region.memory.start_addr().0, 0x5000);
    assert!(region.memory.direct_io());
}

#[test]
fn memory_that_cannot_be_is_refused() {
    let file = anonymous_file(0x1000);
    let fd = file.as_fd();
    let good = add_region(0, 0x1000, 0, 0);
    assert!(received(&good, &[fd]).is_ok());
    assert!(received(&good, &[]).is_err(), "no file");
    assert!(received(&good, &[fd, fd]).is_err(), "two files");
    let too_long = received(&add_region(0, 0x2000, 0, 0), &[fd]).unwrap_err();
    assert!(
        too_long.contains("shared") && too_long.contains("0x1000"),
        "{too_long}"
    );
    let wraps_around = add_region(0, 0x1000, u64::MAX, 0);
    assert!(received(&wraps_around, &[fd]).is_err());
    let eventfd = never();
    assert!(
        received(&good, &[eventfd.as_fd()]).is_err(),
        "not a file that can be mapped"
    );
}

#[test]
fn memory_on_a_file_system_that_may_not_answer_is_refused_unless_it_is_accepted() {
    let advised = MemoryFiles::in_memory("ask for it");
    for (files, good) in [(advised, false), (MemoryFiles::any(), true)] {
        let (mut front, transport) = connected();
        let mut transport = transport.accepting(files);
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let message = add_region(0, 0x1000, 0, 0);
        front.send(&message, &[file.as_fd()]).unwrap();
        let Event::Request(incoming) = transport.next([never().as_fd(); 2]).unwrap() else {
            panic!("a request was sent");
        };
        let error = incoming.request.expect_err("it is open for reading only");
        let error = WithCauses(&error).to_string();
        let refused = error.ends_with("may not answer; ask for it");
        assert_eq!(!refused, good, "{error}");
    }
}

/// Two regions must not overlap in user addresses, even if their guest-physical addresses do not
/// overlap.
#[test]
fn overlapping_addresses_of_the_front_end_are_refused() {
    let file = anonymous_file(0x1000);
    let region = |guest_addr, user_addr| MemoryRegion {
        guest_addr,
        size: 0x1000,
        user_addr,
        file_offset: 0,
        memory: file.as_fd(),
    };
    let table = MemoryTable::new(vec![region(0, 0), region(0x1000, 0x1000)]).unwrap();
    let (mut message, fds) = Request::SetMemTable(table).encode();
    assert!(received(&message, &fds).is_ok());
    // Let the second region overlap the first region in user addresses. The user address begins at
    // byte 16 of a region in the payload.
    message.payload[8 + 32 + 16 + 1] = 8;
    let refusal = received(&message, &fds).unwrap_err();
    assert_eq!(refusal, "memory regions 0 and 1 overlap");
}

#[test]
fn eventfds_have_to_be_as_announced() {
    let eventfd = never();
    let fd = eventfd.as_fd();
    for code in [
        Code::SET_VRING_KICK,
        Code::SET_VRING_CALL,
        Code::SET_VRING_ERR,
    ] {
        assert!(received(&vring_fd(code, 0), &[fd]).is_ok());
        assert!(received(&vring_fd(code, 0x100), &[]).is_ok());
        assert!(
            received(&vring_fd(code, 0), &[]).is_err(),
            "announced and missing"
        );
        let unannounced = received(&vring_fd(code, 0x100), &[fd]);
        assert!(unannounced.is_err(), "there without being announced");
        assert!(received(&vring_fd(code, 0), &[fd, fd]).is_err(), "two");
    }
    assert!(matches!(
        received(&vring_fd(Code::SET_VRING_KICK, 0x103), &[]),
        Ok(Request::SetVringKick(VringFd { index: 3, fd: None }))
    ));
}

#[test]
fn signalling_a_full_eventfd_does_not_block() {
    let eventfd = never();
    let message = vring_fd(Code::SET_VRING_CALL, 0);
    let Ok(Request::SetVringCall(call)) = received(&message, &[eventfd.as_fd()]) else {
        panic!("a call eventfd was given");
    };
    rustix::io::write(&eventfd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    call.fd.unwrap().notify().unwrap();
}

#[test]
fn descriptors_that_are_not_eventfds_are_refused_as_such() {
    let file = anonymous_file(0x1000);
    for code in [
        Code::SET_VRING_KICK,
        Code::SET_VRING_CALL,
        Code::SET_VRING_ERR,
    ] {
        let refusal = received(&vring_fd(code, 0), &[file.as_fd()]).unwrap_err();
        assert!(refusal.contains("not an eventfd"), "{refusal}");
    }
}

#[test]
fn file_descriptors_that_do_not_belong_are_refused() {
    let fd = never();
    let message = Message::request(Code::GET_FEATURES.number(), &[]);
    assert!(received(&message, &[fd.as_fd()]).is_err());
}

#[test]
fn a_front_end_that_stops_within_a_message_is_dropped() {
    let (mut peer, theirs) = UnixStream::pair().unwrap();
    let connection = Connection::new(theirs).unwrap();
    let connection = connection.with_message_limit(Duration::ZERO);
    let mut transport = SocketTransport::new(None, Some(connection));
    peer.write_all(&[1, 0, 0]).unwrap();
    let event = transport.next([never().as_fd(); 2]).unwrap();
    assert!(matches!(event, Event::Dropped(_)), "{event:?}");
    let event = transport.next([never().as_fd(); 2]).unwrap();
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
        let message = Message::request(Code::SET_OWNER.number(), &[]);
        front.send(&message, &[]).unwrap();
        let event = transport.next([never.as_fd(); 2]).unwrap();
        assert!(matches!(event, Event::Request(_)), "{event:?}");
        transport.reply(message.head, Reply::ack(true)).unwrap();
        let (answer, _) = front.recv().unwrap().unwrap();
        assert_eq!(answer, message.head.reply(&[0; 8]));
        drop(front);
        let event = transport.next([never.as_fd(); 2]).unwrap();
        assert!(matches!(event, Event::Left), "{event:?}");
    }
}

#[test]
fn a_dropped_front_end_sees_the_end_and_the_caller_can_wake_up() {
    let (mut front, mut transport) = connected();
    transport.disconnect().unwrap();
    assert!(front.recv().unwrap_err().is_closed());
    let (_front, mut transport) = connected();
    let wake = never();
    rustix::io::write(&wake, &1u64.to_ne_bytes()).unwrap();
    assert!(matches!(
        transport.next([wake.as_fd(); 2]).unwrap(),
        Event::Woken
    ));
}

#[test]
fn a_wake_up_is_seen_between_the_messages_of_a_busy_front_end() {
    let (mut front, mut transport) = connected();
    let wake = never();
    rustix::io::write(&wake, &1u64.to_ne_bytes()).unwrap();
    front
        .send(&Message::request(Code::SET_OWNER.number(), &[]), &[])
        .unwrap();
    front
        .send(&Message::request(Code::SET_OWNER.number(), &[]), &[])
        .unwrap();
    assert!(matches!(
        transport.next([wake.as_fd(); 2]).unwrap(),
        Event::Woken
    ));
}

#[test]
fn descriptors_of_a_reply_go_along() {
    let (mut front, mut transport) = connected();
    let message = Message::request(Code::GET_INFLIGHT_FD.number(), &[]);
    let reply = Reply {
        payload: vec![1, 2],
        fds: vec![never()],
    };
    transport.reply(message.head, reply).unwrap();
    let (answer, fds) = front.recv().unwrap().unwrap();
    assert_eq!((answer, fds.len()), (message.head.reply(&[1, 2]), 1));
}

#[test]
fn a_front_end_that_waits_is_noticed_and_served_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vu.sock");
    let mut transport = SocketTransport::listening(Listener::bind(&path).unwrap());
    let message = Message::request(Code::SET_OWNER.number(), &[]);
    let connect = || Connection::new(UnixStream::connect(&path).unwrap()).unwrap();
    let mut first = connect();
    first.send(&message, &[]).unwrap();
    let never = never();
    assert!(matches!(
        transport.next([never.as_fd(); 2]).unwrap(),
        Event::Request(_)
    ));
    let mut second = connect();
    second.send(&message, &[]).unwrap();
    first.send(&message, &[]).unwrap();
    assert!(matches!(
        transport.next([never.as_fd(); 2]).unwrap(),
        Event::Request(_)
    ));
    assert!(transport.queue_reported);
    drop(first);
    assert!(matches!(
        transport.next([never.as_fd(); 2]).unwrap(),
        Event::Left
    ));
    assert!(matches!(
        transport.next([never.as_fd(); 2]).unwrap(),
        Event::Request(_)
    ));
    assert!(!transport.queue_reported);
}
