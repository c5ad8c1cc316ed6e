use std::io::Write;

use super::*;
use crate::table::Code;

fn request(code: Code, payload: &[u8]) -> Message {
    Message::request(code.number(), payload)
}

fn pair() -> (UnixStream, Connection) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (ours, Connection::new(theirs).unwrap())
}

#[test]
fn messages_arrive_whole_however_they_are_cut() {
    let (mut peer, mut connection) = pair();
    let message = request(Code::SET_FEATURES, &7u64.to_le_bytes());
    let bytes = message.encode();
    for byte in &bytes[..bytes.len() - 1] {
        assert!(connection.recv().unwrap().is_none());
        peer.write_all(&[*byte]).unwrap();
    }
    assert!(connection.recv().unwrap().is_none());
    assert!(connection.time_left().is_some());
    // The last byte of the message arrives together with the next message.
    let next = request(Code::GET_FEATURES, &[]);
    peer.write_all(&[&bytes[bytes.len() - 1..], &next.encode()[..]].concat())
        .unwrap();
    assert_eq!(connection.recv().unwrap().unwrap().0, message);
    assert!(connection.time_left().is_none());
    assert_eq!(connection.recv().unwrap().unwrap().0, next);
    assert!(connection.recv().unwrap().is_none());
}

#[test]
fn file_descriptors_stay_with_their_message() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (mut front, mut back) = (
        Connection::new(ours).unwrap(),
        Connection::new(theirs).unwrap(),
    );
    let file = std::fs::File::open("/dev/null").unwrap();
    let plain = request(Code::SET_OWNER, &[]);
    let with_fds = request(Code::SET_VRING_KICK, &[0; 8]);
    front.send(&plain, &[]).unwrap();
    front
        .send(&with_fds, &[file.as_fd(), file.as_fd()])
        .unwrap();
    front.send(&plain, &[]).unwrap();
    let counts: Vec<_> = std::iter::from_fn(|| back.recv().unwrap())
        .map(|(_, fds)| fds.len())
        .collect();
    assert_eq!(counts, [0, 2, 0]);
}

#[test]
fn a_peer_that_leaves_is_told_apart_from_one_that_breaks_off() {
    let (peer, mut connection) = pair();
    drop(peer);
    assert!(connection.recv().unwrap_err().is_closed());
    let (mut peer, mut connection) = pair();
    peer.write_all(&[1, 0, 0]).unwrap();
    drop(peer);
    assert!(matches!(
        connection.recv(),
        Err(ConnectionError::Stream(StreamError::CutOff))
    ));
}

#[test]
fn an_oversized_message_is_refused_at_its_header() {
    let (mut peer, mut connection) = pair();
    peer.write_all(&[1, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff])
        .unwrap();
    assert!(matches!(connection.recv(), Err(ConnectionError::Decode(_))));
}

#[test]
fn a_peer_that_never_reads_is_given_up() {
    let (_peer, mut connection) = pair();
    let message = request(Code::SET_MEM_TABLE, &[0; 4000]);
    let error = (0..10_000).find_map(|_| connection.send(&message, &[]).err());
    assert!(matches!(
        error,
        Some(ConnectionError::Stream(StreamError::Stuck))
    ));
}
