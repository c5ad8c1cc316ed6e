//! A test with few file descriptors. The limit on descriptors applies to a whole process, so the
//! test that lowers the limit runs in a separate process.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ipc::{Accepted, Listener, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn limit_descriptors(current: Option<u64>) {
    let limit = Rlimit {
        current,
        ..getrlimit(Resource::Nofile)
    };
    setrlimit(Resource::Nofile, limit).expect("a limit may be lowered and raised again");
}

#[test]
fn a_listener_without_descriptors_rests_and_then_accepts_the_peer_that_waited() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = Listener::bind(&path).unwrap();
    let _peer = UnixStream::connect(&path).unwrap();
    let before = getrlimit(Resource::Nofile).current;
    limit_descriptors(Some(0));
    assert!(matches!(listener.accept().unwrap(), Accepted::Later(_)));
    limit_descriptors(before);
    assert!(matches!(listener.accept().unwrap(), Accepted::Nobody));
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut polls = 0;
    while !matches!(listener.accept().unwrap(), Accepted::Peer(_)) {
        assert!(Instant::now() < deadline);
        let (interest, rest) = listener.interest();
        poll([interest], rest).unwrap();
        polls += 1;
    }
    assert!(polls < 10, "it was polled {polls} times while it rested");
}
