use std::io::Write;

use super::*;

/// The reason for which [`missing`] refuses a message.
#[derive(Debug, thiserror::Error)]
enum TestError {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("too long")]
    TooLong,
}

/// The number of bytes that are missing from a message. A message begins with two bytes that give
/// the length of its remaining bytes. The first byte counts bytes, and the second byte counts KiB.
/// The second byte must not be 255.
fn missing(received: &[u8]) -> Result<usize, TestError> {
    match *received {
        [] => Ok(2),
        [_] => Ok(1),
        [_, 0xff, ..] => Err(TestError::TooLong),
        [low, high, ..] => Ok(2 + (usize::from(high) << 10) + usize::from(low) - received.len()),
    }
}

const MAX_FDS: usize = 2;

fn pair() -> (UnixStream, Framed) {
    let (peer, ours) = UnixStream::pair().unwrap();
    (peer, Framed::new(ours, MAX_FDS).unwrap())
}

#[test]
fn messages_arrive_whole_however_they_are_cut() {
    let (mut peer, mut framed) = pair();
    for byte in [3, 0, 10, 11] {
        assert!(framed.receive(missing).unwrap().is_none());
        peer.write_all(&[byte]).unwrap();
    }
    assert!(framed.receive(missing).unwrap().is_none());
    // The last byte of the first message arrives together with the second message.
    peer.write_all(&[12, 1, 0, 20]).unwrap();
    assert_eq!(
        framed.receive(missing).unwrap().unwrap().bytes,
        [3, 0, 10, 11, 12]
    );
    assert_eq!(framed.receive(missing).unwrap().unwrap().bytes, [1, 0, 20]);
    assert!(framed.receive(missing).unwrap().is_none());
}

#[test]
fn a_message_that_began_has_a_time_limit_which_further_bytes_do_not_stretch() {
    let (mut peer, framed) = pair();
    let mut framed = framed.with_message_limit(Duration::from_secs(1000));
    assert!(framed.receive(missing).unwrap().is_none());
    assert_eq!(framed.time_left(), None);
    peer.write_all(&[2, 0]).unwrap();
    assert!(framed.receive(missing).unwrap().is_none());
    let first = framed.time_left().unwrap();
    peer.write_all(&[1]).unwrap();
    assert!(framed.receive(missing).unwrap().is_none());
    assert!(framed.time_left().unwrap() <= first);
    peer.write_all(&[2]).unwrap();
    assert!(framed.receive(missing).unwrap().is_some());
    assert_eq!(framed.time_left(), None);
}

#[test]
fn a_peer_that_stops_in_a_message_is_given_up_once_nothing_more_comes() {
    let (mut peer, framed) = pair();
    let mut framed = framed.with_message_limit(Duration::ZERO);
    assert!(
        framed.receive(missing).unwrap().is_none(),
        "no message has begun"
    );
    for byte in [3, 0, 1] {
        peer.write_all(&[byte]).unwrap();
        assert!(
            framed.receive(missing).unwrap().is_none(),
            "there was more to receive"
        );
    }
    let error = framed.receive(missing).unwrap_err();
    assert!(matches!(error, TestError::Stream(StreamError::Stalled)));
}

#[test]
fn descriptors_stay_with_their_message() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut sender = Framed::new(ours, MAX_FDS).unwrap();
    let mut receiver = Framed::new(theirs, MAX_FDS).unwrap();
    let file = tempfile::tempfile().unwrap();
    for count in [0, 2, 0, 1] {
        sender.send(&[1, 0, 7], &vec![file.as_fd(); count]).unwrap();
    }
    let messages = std::iter::from_fn(|| receiver.receive(missing).unwrap());
    let counts: Vec<_> = messages.map(|message| message.fds.len()).collect();
    assert_eq!(counts, [0, 2, 0, 1]);
}

#[test]
fn the_parts_of_a_message_bring_no_more_descriptors_than_a_whole_one_may() {
    let (peer, mut framed) = pair();
    let peer = Stream::new(peer).unwrap();
    for byte in [3, 0] {
        peer.send(&[byte], &[peer.as_fd()]).unwrap();
        assert!(framed.receive(missing).unwrap().is_none());
    }
    peer.send(&[1], &[peer.as_fd()]).unwrap();
    let error = framed.receive(missing).unwrap_err();
    assert!(matches!(
        error,
        TestError::Stream(StreamError::TooManyFds(MAX_FDS))
    ));
}

#[test]
fn a_peer_that_leaves_is_told_apart_from_one_that_breaks_off() {
    let (peer, mut framed) = pair();
    drop(peer);
    let error = framed.receive(missing).unwrap_err();
    assert!(matches!(error, TestError::Stream(StreamError::Closed)));
    let (mut peer, mut framed) = pair();
    peer.write_all(&[3, 0]).unwrap();
    drop(peer);
    let error = framed.receive(missing).unwrap_err();
    assert!(matches!(error, TestError::Stream(StreamError::CutOff)));
}

#[test]
fn a_message_that_is_too_long_is_refused_at_its_header() {
    let (mut peer, mut framed) = pair();
    peer.write_all(&[1, 0xff]).unwrap();
    assert!(matches!(framed.receive(missing), Err(TestError::TooLong)));
}

/// Receives all bytes and descriptors that arrive while the sender flushes.
fn drain(sender: &mut Framed, receiver: &Stream) -> (Vec<u8>, Vec<OwnedFd>) {
    let (mut received, mut fds) = (Vec::new(), Vec::new());
    let mut part = vec![0; 4096];
    loop {
        let flushed = sender.flush().unwrap();
        match receiver.receive(&mut part, &mut fds, MAX_FDS).unwrap() {
            Some(count) => received.extend_from_slice(&part[..count]),
            None if flushed => return (received, fds),
            None => {}
        }
    }
}

#[test]
fn a_message_that_is_longer_than_the_socket_has_room_is_sent_in_parts() {
    let (peer, mut framed) = pair();
    let peer = Stream::new(peer).unwrap();
    let long: Vec<u8> = (0..1 << 20).map(|index: u32| index as u8).collect();
    framed.send(&long, &[]).unwrap();
    assert!(framed.wants_write());
    assert!(matches!(framed.send(&[1], &[]), Err(StreamError::Stuck)));
    let (received, _) = drain(&mut framed, &peer);
    assert!(received == long);
    assert!(!framed.wants_write());
}

#[test]
fn descriptors_that_do_not_go_now_go_later_with_their_message() {
    let (peer, mut framed) = pair();
    let peer = Stream::new(peer).unwrap();
    while framed.stream.send(&[9], &[]).unwrap() > 0 {}
    let file = tempfile::tempfile().unwrap();
    framed.send(&[1, 0, 7], &[file.as_fd()]).unwrap();
    assert!(framed.wants_write());
    let (received, fds) = drain(&mut framed, &peer);
    assert!(received.ends_with(&[9, 1, 0, 7]));
    assert_eq!(fds.len(), 1);
}

#[test]
fn a_peer_that_never_reads_is_given_up() {
    let (_peer, mut framed) = pair();
    let error = (0..10_000).find_map(|_| framed.send_whole(&[0; 4000], &[]).err());
    assert!(matches!(error, Some(StreamError::Stuck)));
}
