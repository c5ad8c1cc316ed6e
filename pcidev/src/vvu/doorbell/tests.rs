use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use super::*;

fn eventfd() -> (OwnedFd, SharedEventFd) {
    let eventfd = SharedEventFd::new().unwrap();
    (eventfd.try_clone().unwrap(), eventfd)
}

/// The tokens of the doorbells that clients have signalled since the previous call of this
/// function.
fn rung(poller: &Poller) -> Vec<Token> {
    poller.ready().into_iter().map(Token::from_number).collect()
}

#[test]
fn writes_of_every_width_ring() {
    let poller = Poller::new().unwrap();
    let mut doorbells = Doorbells::new(16, &poller).unwrap();
    let ((fd, call), (other, error)) = (eventfd(), eventfd());
    doorbells.set(Doorbell::Call(5), Some(fd)).unwrap();
    doorbells.set(Doorbell::Error(5), Some(other)).unwrap();
    for len in [1, 2, 4] {
        doorbells.write(0x14, len).unwrap();
        assert!(call.take().unwrap(), "{len} bytes");
    }
    assert!(!error.take().unwrap());
    doorbells.write(4 * 21, 2).unwrap();
    assert!(error.take().unwrap());
    for (offset, len) in [
        (0x14, 8),
        (0x14, 0),
        (0x16, 2),
        (0x18, 2),
        (4 * 32, 2),
        (u64::MAX, 1),
    ] {
        doorbells.write(offset, len).unwrap();
        assert!(
            !call.take().unwrap() && !error.take().unwrap(),
            "{offset:#x}"
        );
    }
    doorbells.disconnect();
    doorbells.write(0x14, 2).unwrap();
    assert!(!call.take().unwrap());
}

#[test]
fn a_call_can_be_replaced_and_taken_away() {
    let poller = Poller::new().unwrap();
    let mut doorbells = Doorbells::new(1, &poller).unwrap();
    let ((one, first), (two, second)) = (eventfd(), eventfd());
    doorbells.set(Doorbell::Call(0), Some(one)).unwrap();
    doorbells.set(Doorbell::Call(0), Some(two)).unwrap();
    doorbells.write(0, 2).unwrap();
    assert!(!first.take().unwrap() && second.take().unwrap());
    doorbells.set(Doorbell::Call(0), None).unwrap();
    doorbells.write(0, 2).unwrap();
    assert!(!second.take().unwrap());
    assert!(doorbells.set(Doorbell::Call(1), None).is_err());
    assert!(doorbells.set(Doorbell::Log, None).is_err());
}

#[test]
fn a_signal_that_blocks_is_an_error_after_milliseconds() {
    let poller = Poller::new().unwrap();
    let mut doorbells = Doorbells::new(1, &poller).unwrap();
    let (fd, full) = eventfd();
    doorbells.set(Doorbell::Call(0), Some(fd)).unwrap();
    rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    rustix::io::ioctl_fionbio(&full, false).unwrap();
    let (done, result) = channel();
    thread::spawn(move || done.send(doorbells.write(0, 2).unwrap_err().kind()));
    let rung = result.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(rung, io::ErrorKind::TimedOut);
}

#[test]
fn a_descriptor_that_is_not_an_eventfd_is_refused_and_replaces_the_one_before() {
    let poller = Poller::new().unwrap();
    let mut doorbells = Doorbells::new(1, &poller).unwrap();
    doorbells.set(Doorbell::Call(0), Some(eventfd().0)).unwrap();
    let (reader, _) = std::io::pipe().unwrap();
    let refused = doorbells.set(Doorbell::Call(0), Some(reader.into()));
    assert!(refused.is_err());
    assert!(doorbells.calls[0].is_none());
}

#[test]
fn a_client_can_signal_instead_of_writing() {
    let poller = Poller::new().unwrap();
    let mut doorbells = Doorbells::new(16, &poller).unwrap();
    let offered = doorbells.io_event_fds();
    let offsets: Vec<_> = offered.iter().map(|entry| entry.offset).collect();
    assert_eq!((offsets.len(), offsets[5]), (16, 0x14));
    let (fd, call) = eventfd();
    offered[5].eventfd.signal().unwrap();
    assert_eq!(rung(&poller), [Token::Doorbell(5)]);
    doorbells.ring(Doorbell::Call(5)).unwrap();
    assert_eq!(rung(&poller), [], "dropped: nobody to call");
    doorbells.set(Doorbell::Call(5), Some(fd)).unwrap();
    assert!(!call.take().unwrap());
    offered[5].eventfd.signal().unwrap();
    assert_eq!(rung(&poller), [Token::Doorbell(5)]);
    doorbells.ring(Doorbell::Call(5)).unwrap();
    assert!(call.take().unwrap());
    doorbells.ring(Doorbell::Call(99)).unwrap();
}

#[test]
fn a_client_that_left_rings_no_doorbell_of_the_next_one() {
    let poller = Poller::new().unwrap();
    let mut doorbells = Doorbells::new(1, &poller).unwrap();
    let kept = doorbells.io_event_fds().remove(0).eventfd;
    doorbells.replace_events(&poller).unwrap();
    kept.signal().unwrap();
    assert_eq!(rung(&poller), []);
    doorbells.io_event_fds()[0].eventfd.signal().unwrap();
    assert_eq!(rung(&poller), [Token::Doorbell(0)]);
}
