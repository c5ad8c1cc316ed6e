//! Tests with peers that stop in the middle of a message. Each test takes 5 seconds, because it
//! waits for the deadline of the message.

use std::io::Write;

use super::*;

/// A peer that sends one byte of a message and then stops.
fn stalled(host: &Host, name: &str) -> UnixStream {
    let mut peer = UnixStream::connect(host.path(name)).unwrap();
    peer.write_all(&[1]).unwrap();
    peer
}

#[test]
fn a_client_that_stops_in_a_message_makes_room_for_the_next() {
    let host = Host::start();
    let _stalled = stalled(&host, "vfio-user");
    let mut vm = host.vm();
    vm.start();
}

#[test]
fn a_front_end_that_stops_in_a_message_makes_room_for_the_next() {
    let host = Host::start();
    let mut vm = host.vm();
    vm.start_up();
    let _stalled = stalled(&host, "vhost-user");
    assert_eq!(vm.config_changed(), 3, "a front-end is there");
    assert_eq!(vm.config_changed(), 0, "it was dropped");
    vm.set_up(1);
    let _next = host.front_end();
    assert_eq!(vm.config_changed(), 3);
}
