//! Tests of the answers to requests that fail.

use std::sync::mpsc::channel;
use std::thread;

use super::*;
use crate::transport::DropReason;

fn bytes(code: Code, payload: &[u8]) -> Message {
    Message::request(code.number(), payload)
}

fn encode(request: Request<Absent>) -> Message {
    request.encode().0
}

/// Requests that the session refuses and that have no reply of their own.
fn wrong_requests() -> Vec<Message> {
    let addr = VringAddr {
        desc: USER + SIZE,
        avail: USER,
        used: USER,
        ..VringAddr::default()
    };
    let fd = Some(Absent);
    let above = table(0x1_8000, USER + 0x10_0000);
    let user_twice = table(0x10_0000, USER + 0x8000);
    vec![
        encode(Request::SetFeatures(1)),
        encode(Request::SetProtocolFeatures(ProtocolFeatures::LOG_SHMFD)),
        encode(Request::SetVringNum(state(0, 0))),
        encode(Request::SetVringNum(state(0, 3))),
        encode(Request::SetVringNum(state(0, 512))),
        encode(Request::SetVringNum(state(2, 128))),
        encode(Request::SetVringNum(state(u32::MAX, 128))),
        encode(Request::SetVringBase(state(0, 0x1_0000))),
        encode(Request::SetVringEnable(state(0, 2))),
        encode(Request::SetVringEnable(state(0x1_0000, 1))),
        encode(Request::SetVringAddr(addr)),
        encode(Request::SetVringKick(VringFd { index: 0, fd })),
        encode(Request::SetVringKick(VringFd { index: 2, fd: None })),
        encode(Request::SetVringCall(VringFd { index: 2, fd: None })),
        encode(Request::SetVringErr(VringFd {
            index: 255,
            fd: None,
        })),
        encode(Request::AddMemReg(above)),
        encode(Request::AddMemReg(user_twice)),
        encode(Request::RemMemReg(region(0, USER).with(()))),
        encode(Request::SetConfig(ConfigAccess::write(15, &[1, 2]))),
        encode(Request::SetConfig(ConfigAccess::write(256, &[1]))),
        encode(Request::SetBackEndReqFd(Absent)),
        bytes(
            Code::SET_CONFIG,
            &[0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 2],
        ),
        bytes(Code::SET_FEATURES, &[0; 7]),
        bytes(Code::SET_MEM_TABLE, &[]),
        bytes(Code::SET_VRING_CALL, &[0; 9]),
        bytes(Code::SET_LOG_FD, &[]),
        bytes(Code::SET_INFLIGHT_FD, &[0; 24]),
        bytes(Code::SEND_RARP, &[0; 8]),
        Message::request(200, &[]),
    ]
}

/// A refused request is acknowledged as failed if the front-end asked for an acknowledgement.
/// Otherwise the session drops the front-end.
#[test]
fn wrong_requests_are_acknowledged_as_failed_or_drop_the_front_end() {
    for message in wrong_requests() {
        let play = |message: &Message| {
            Script::negotiated()
                .message(message, Stand::default())
                .play()
                .0
        };
        let played = play(&message);
        let outcome = (played.dropped, played.replies.len());
        assert_eq!(outcome, (1, 0), "{message:?}");
        let played = play(&message.clone().needing_reply());
        assert_eq!(
            (played.dropped, played.numbers()),
            (0, vec![1]),
            "{message:?}"
        );
    }
}

/// A failed request that has a reply of its own is not acknowledged, because the front-end would
/// take the acknowledgement for the reply.
#[test]
fn requests_that_have_a_reply_end_the_connection_when_they_fail() {
    let wrong = [
        bytes(Code::GET_FEATURES, &[1]),
        bytes(Code::GET_PROTOCOL_FEATURES, &[1]),
        bytes(Code::GET_QUEUE_NUM, &[0; 8]),
        bytes(Code::GET_MAX_MEM_SLOTS, &[0; 8]),
        bytes(Code::GET_VRING_BASE, &[0; 4]),
        encode(Request::GetVringBase(state(2, 0))),
        encode(Request::GetVringBase(state(u32::MAX, 0))),
        bytes(Code::SET_LOG_BASE, &[0; 16]),
        bytes(Code::GET_INFLIGHT_FD, &[0; 24]),
        bytes(Code::GET_STATUS, &[]),
        bytes(Code::CHECK_DEVICE_STATE, &[]),
        bytes(Code::SET_DEVICE_STATE_FD, &[0; 8]),
        bytes(Code::POSTCOPY_ADVISE, &[]),
    ];
    for message in wrong {
        for message in [message.clone(), message.needing_reply()] {
            let script = Script::negotiated().message(&message, Stand::default());
            let (played, _) = script.play();
            assert_eq!(
                (played.dropped, played.replies.len()),
                (1, 0),
                "{message:?}"
            );
        }
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_an_empty_reply() {
    for message in [
        encode(Request::GetConfig(ConfigAccess::read(1, 256))),
        encode(Request::GetConfig(ConfigAccess::read(u32::MAX, 1))),
        encode(Request::GetConfig(ConfigAccess::read(0x100, 8))),
        bytes(Code::GET_CONFIG, &[0; 11]),
    ] {
        for message in [message.clone(), message.needing_reply()] {
            let script = Script::negotiated().message(&message, Stand::default());
            let (played, _) = script.ask(Request::GetQueueNum).play();
            let expected = [message.head.reply(&[]), message_of_queues()];
            assert_eq!((played.dropped, &played.replies[..]), (0, &expected[..]));
        }
    }
}

fn message_of_queues() -> Message {
    let (question, _) = Request::<Absent>::GetQueueNum.encode();
    question.head.reply(&2u64.to_le_bytes())
}

#[test]
fn replies_drop_the_front_end() {
    for code in [Code::GET_FEATURES, Code::GET_CONFIG, Code::SET_OWNER] {
        let reply = bytes(code, &[]).needing_reply().head.reply(&[0; 8]);
        let (played, _) = Script::negotiated()
            .message(&reply, Stand::default())
            .play();
        assert_eq!((played.dropped, played.replies.len()), (1, 0));
    }
}

#[test]
fn what_was_not_negotiated_is_refused() {
    let (played, _) = Script::default().ask(Request::GetQueueNum).play();
    assert_eq!(played.dropped, 1);
    // Without REPLY_ACK, the session can refuse a request only by dropping the front-end.
    let (played, _) = Script::default().ask_ack(Request::SetFeatures(1)).play();
    assert_eq!((played.dropped, played.replies.len()), (1, 0));
}

#[test]
fn overlapping_memory_is_refused_and_the_old_table_stays() {
    let (played, device) = Script::negotiated()
        .vring(0)
        .kick(0, Some(eventfd()))
        .ask_ack(Request::AddMemReg(table(0x1_8000, USER + 0x10_0000)))
        .play();
    assert_eq!(played.numbers(), [1]);
    assert_eq!(device.last().regions, 1);
}

#[test]
fn a_front_end_that_a_transport_dropped_leaves_nothing() {
    let reason = DropReason::Connection(ipc::StreamError::Stalled.into());
    let first = Script::negotiated().vring(0).kick(0, Some(eventfd()));
    let (played, device) = first.event(Event::Dropped(reason)).play();
    assert_eq!(device.log(), ["start 0 at 7", "stop 0"]);
    assert_eq!(played.dropped, 0);
}

/// The session signals the call notifier at once, on the thread that handles messages.
#[test]
fn a_call_that_blocks_drops_its_front_end_and_the_next_one_is_served() {
    let full = eventfd();
    rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    rustix::io::ioctl_fionbio(&full, false).unwrap();
    let script = Script::negotiated()
        .vring(0)
        .kick(0, Some(eventfd()))
        .call(0, Some(Arc::new(full)))
        .ask(Request::GetFeatures);
    let (done, result) = channel();
    thread::spawn(move || done.send(script.play()));
    let (played, device) = result.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(device.log(), ["start 0 at 7", "stop 0"]);
    assert_eq!((played.dropped, played.replies.len()), (1, 1));
}
