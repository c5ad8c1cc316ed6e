use super::*;
use std::io::Write;
use vhost::vhost_user::message::FrontendReq;

fn pair() -> (UnixStream, Connection) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (ours, Connection::new(theirs).unwrap())
}

#[test]
fn messages_arrive_whole_however_they_are_cut() {
    let (mut peer, mut connection) = pair();
    let message = Message::request(FrontendReq::SET_FEATURES, &7u64.to_le_bytes());
    let bytes = message.encode();
    for byte in &bytes[..bytes.len() - 1] {
        assert!(connection.recv().unwrap().is_none());
        peer.write_all(&[*byte]).unwrap();
    }
    assert!(connection.recv().unwrap().is_none());
    assert!(connection.mid_message());
    // The last byte comes together with the next message.
    let next = Message::request(FrontendReq::GET_FEATURES, &[]);
    peer.write_all(&[&bytes[bytes.len() - 1..], &next.encode()[..]].concat())
        .unwrap();
    assert_eq!(connection.recv().unwrap().unwrap().0, message);
    assert!(!connection.mid_message());
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
    let plain = Message::request(FrontendReq::SET_OWNER, &[]);
    let with_fds = Message::request(FrontendReq::SET_VRING_KICK, &[0; 8]);
    front.send(&plain).unwrap();
    front
        .send_with_fds(&with_fds, &[file.as_fd(), file.as_fd()])
        .unwrap();
    front.send(&plain).unwrap();
    let counts: Vec<_> = std::iter::from_fn(|| back.recv().unwrap())
        .map(|(_, fds)| fds.len())
        .collect();
    assert_eq!(counts, [0, 2, 0]);
}

#[test]
fn a_peer_that_leaves_is_told_apart_from_one_that_breaks_off() {
    let (peer, mut connection) = pair();
    drop(peer);
    assert!(matches!(connection.recv(), Err(ConnectionError::Closed)));
    let (mut peer, mut connection) = pair();
    peer.write_all(&[1, 0, 0]).unwrap();
    drop(peer);
    assert!(matches!(connection.recv(), Err(ConnectionError::CutOff)));
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
    let message = Message::request(FrontendReq::SET_MEM_TABLE, &[0; 4000]);
    let error = (0..10_000).find_map(|_| connection.send(&message).err());
    assert!(matches!(error, Some(ConnectionError::Stuck)));
}

#[test]
fn a_listener_takes_over_a_dead_path_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vu.sock");
    let first = Listener::bind(&path).unwrap();
    assert!(matches!(Listener::bind(&path), Err(ListenError::Busy(_))));
    assert!(
        path.exists(),
        "a refused listener leaves the socket of the other"
    );
    drop(first);
    assert!(!path.exists());
    // What a killed process leaves behind: a socket that nobody listens on.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let listener = Listener::bind(&path).unwrap();
    assert!(listener.accept().unwrap().is_none());
    let _peer = UnixStream::connect(&path).unwrap();
    assert!(listener.accept().unwrap().is_some());
}

#[test]
fn a_listener_refuses_what_it_cannot_take() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "keep me").unwrap();
    assert!(matches!(
        Listener::bind(&file),
        Err(ListenError::NotASocket(_))
    ));
    assert_eq!(std::fs::read(&file).unwrap(), b"keep me");
    let missing = folder.path().join("missing/vu.sock");
    assert!(matches!(
        Listener::bind(&missing),
        Err(ListenError::NoFolder(_))
    ));
}
