use super::*;

fn kick() -> (OwnedFd, SharedEventFd) {
    let eventfd = SharedEventFd::new().unwrap();
    (eventfd.try_clone().unwrap(), eventfd)
}

/// The tokens of the kick eventfds that were signalled since the previous call of this function.
fn kicks(poller: &Poller) -> Vec<Token> {
    poller.ready().into_iter().map(Token::from_number).collect()
}

fn read(notifications: &Notifications) -> [u8; 4] {
    let mut data = [0; 4];
    notifications.read(0, &mut data);
    data
}

#[test]
fn registers_are_written_one_by_one_or_both() {
    let mut notifications = Notifications::new(16, 19);
    assert_eq!(read(&notifications), [0, 0, 0xff, 0xff]);
    notifications.write(0, &[1, 0]);
    notifications.write(2, &[3, 0]);
    assert_eq!(read(&notifications), [1, 0, 3, 0]);
    notifications.write(0, &[2, 0, 4, 0]);
    assert_eq!(read(&notifications), [2, 0, 4, 0]);
    notifications.write(0, &[1, 0]);
    assert_eq!(read(&notifications), [1, 0, 3, 0]);
}

#[test]
fn queues_and_vectors_have_to_exist() {
    let mut notifications = Notifications::new(16, 19);
    notifications.write(0, &[1, 0, 3, 0]);
    notifications.write(0, &[16, 0]);
    assert_eq!(read(&notifications), [1, 0, 3, 0], "select keeps its value");
    notifications.write(0, &[0xff, 0xff, 5, 0]);
    assert_eq!(read(&notifications), [1, 0, 3, 0]);
    notifications.write(2, &[19, 0]);
    assert_eq!(read(&notifications), [1, 0, 0xff, 0xff]);
    for (offset, len) in [
        (0, 0),
        (0, 1),
        (1, 2),
        (2, 4),
        (4, 2),
        (0, 8),
        (u64::MAX, 2),
    ] {
        notifications.write(offset, &vec![7; len]);
        assert_eq!(read(&notifications), [1, 0, 0xff, 0xff], "{offset} {len}");
    }
    let mut data = [7; 8];
    notifications.read(2, &mut data);
    assert_eq!(data, [0xff, 0xff, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_kick_waits_for_its_vector() {
    let poller = Poller::new().unwrap();
    let mut notifications = Notifications::new(2, 19);
    let (fd, kick) = kick();
    kick.signal().unwrap();
    notifications.set_kick(1, Some(fd), &poller).unwrap();
    assert_eq!(kicks(&poller), [Token::Kick(1)]);
    assert_eq!(notifications.kicked(1), None);
    assert_eq!(kicks(&poller), [], "once");
    assert_eq!(notifications.write(0, &[1, 0, 99, 0]), None);
    assert_eq!(notifications.write(0, &[1, 0, 4, 0]), Some(4));
    assert_eq!(notifications.write(0, &[1, 0, 5, 0]), None, "once");
    kick.signal().unwrap();
    assert_eq!(kicks(&poller), [Token::Kick(1)]);
    assert_eq!(notifications.kicked(1), Some(5));
}

#[test]
fn a_replaced_kick_is_no_longer_watched() {
    let poller = Poller::new().unwrap();
    let mut notifications = Notifications::new(2, 19);
    let ((one, first), (two, second)) = (kick(), kick());
    notifications.set_kick(0, Some(one), &poller).unwrap();
    notifications.set_kick(0, Some(two), &poller).unwrap();
    first.signal().unwrap();
    assert_eq!(kicks(&poller), []);
    second.signal().unwrap();
    assert_eq!(kicks(&poller), [Token::Kick(0)]);
    notifications.disconnect(&poller);
    second.signal().unwrap();
    assert_eq!(kicks(&poller), []);
    assert_eq!(notifications.kicked(0), None);
}

#[test]
fn a_descriptor_that_is_not_an_eventfd_is_refused() {
    let poller = Poller::new().unwrap();
    let mut notifications = Notifications::new(1, 19);
    let file = virtio::test_utils::anonymous_file(8).try_clone().unwrap();
    let (_, writer) = std::io::pipe().unwrap();
    for fd in [file.into(), writer.into()] {
        assert!(notifications.set_kick(0, Some(fd), &poller).is_err());
    }
    assert_eq!(kicks(&poller), [], "it is not watched");
}

#[test]
fn a_queue_that_does_not_exist_has_no_kick() {
    let poller = Poller::new().unwrap();
    let mut notifications = Notifications::new(1, 19);
    assert!(notifications.set_kick(1, None, &poller).is_err());
    assert_eq!(notifications.kicked(7), None);
}
