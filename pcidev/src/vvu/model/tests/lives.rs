//! Tests with front-ends, drivers and device VMs that connect, leave and connect again.

use super::*;

#[test]
fn front_ends_come_and_go() {
    let host = Host::start();
    let (mut vm, front_end) = host.connected();
    let waiting = host.front_end();
    drop(front_end);
    assert_eq!(vm.config_changed(), 0);
    assert!(
        !is_rung(&vm.irqs[0]),
        "not let in before the driver is ready again"
    );
    vm.set_up(1);
    assert_eq!(vm.config_changed(), 3);
    drop(waiting);
    assert_eq!(vm.config_changed(), 0);
    for round in 0..3 {
        vm.set_up(1);
        let mut front_end = host.front_end();
        assert_eq!(vm.config_changed(), 3);
        let call = event();
        vm.write(2, 0, &[0, 0]);
        front_end.send_fds(&number(Code::SET_VRING_CALL, 0), &[call.as_fd()]);
        assert_eq!(vm.recv().as_number().unwrap(), 0);
        vm.post(1);
        assert!(!is_rung(&call), "round {round}");
        vm.write(2, 0, &[0, 0]);
        take(&call);
        drop(front_end);
        assert_eq!(vm.config_changed(), 0);
        vm.write(2, 0, &[0, 0]);
        assert!(!is_rung(&call), "nothing of the last one is left");
    }
}

#[test]
fn a_front_end_leaves_while_the_driver_has_no_buffers() {
    let host = Host::start();
    let mut vm = host.vm();
    vm.start();
    vm.set_up(1);
    let mut front_end = host.front_end();
    assert_eq!(vm.config_changed(), 3);
    front_end.send(&number(Code::SET_FEATURES, 1));
    front_end.send(&number(Code::SET_FEATURES, 2));
    drop(front_end);
    assert_eq!(vm.config_changed(), 0);
    vm.set_up(1);
    vm.post(4);
    let mut front_end = host.front_end();
    assert_eq!(vm.config_changed(), 3);
    front_end.send(&number(Code::SET_FEATURES, 3));
    assert_eq!(vm.recv().as_number().unwrap(), 3, "only the new one's");
}

#[test]
fn the_driver_disconnects_the_front_end() {
    let host = Host::start();
    let (mut vm, mut front_end) = host.connected();
    vm.set_up(0);
    assert_eq!(vm.link(), 0);
    assert!(!is_rung(&vm.irqs[0]), "it knows");
    front_end.closed();
    vm.set_up(1);
    assert_eq!(vm.link(), 1, "the same peer has to connect again");
    let mut again = host.front_end();
    assert_eq!(vm.config_changed(), 3);
    again.send(&request(Code::SET_OWNER, &[]));
    assert_eq!(vm.recv(), request(Code::SET_OWNER, &[]));
}

#[test]
fn resets_while_connected() {
    let host = Host::start();
    let (mut vm, mut front_end) = host.connected();
    let kick = event();
    vm.set_notification(0, 3);
    front_end.send_fds(&number(Code::SET_VRING_KICK, 0), &[kick.as_fd()]);
    vm.recv();
    vm.reset();
    vm.reset();
    front_end.closed();
    assert_eq!((vm.link(), vm.read::<2>(2, 0x2002)), (0, [0xff; 2]));
    ring(&kick);
    let mut front_end = host.front_end();
    front_end.send(&request(Code::SET_OWNER, &[]));
    vm.start_up();
    assert_eq!(
        vm.config_changed(),
        3,
        "it connected before the driver was ready"
    );
    vm.recv();
    assert!(!is_rung(&vm.irqs[3]));
    vm.client.reset().unwrap();
    front_end.closed();
    assert_eq!((vm.status(), vm.link()), (0, 0));
    vm.start_up();
    let mut front_end = host.front_end();
    assert_eq!(vm.config_changed(), 3);
    vm.write(7, 0xd8 + 4, &[1]);
    front_end.closed();
    assert_eq!(vm.status(), 0, "function-level reset");
}

#[test]
fn the_device_vm_comes_again() {
    let host = Host::start();
    let (vm, mut front_end) = host.connected();
    drop(vm);
    front_end.closed();
    let mut front_end = host.front_end();
    let mut vm = host.vm();
    assert_eq!((vm.status(), vm.link()), (0, 0));
    vm.start_up();
    assert_eq!(vm.config_changed(), 3);
    front_end.send(&request(Code::SET_OWNER, &[]));
    assert_eq!(vm.recv(), request(Code::SET_OWNER, &[]));
}

#[test]
fn a_front_end_before_driver_ok_waits() {
    let host = Host::start();
    let mut front_end = host.front_end();
    front_end.send(&request(Code::SET_OWNER, &[]));
    let mut vm = host.vm();
    vm.set_up(1);
    assert_eq!(vm.link(), 1);
    vm.start_up();
    assert_eq!(vm.config_changed(), 3);
    vm.recv();
}

#[test]
fn a_device_vm_that_truncates_its_memory_is_dropped_and_the_next_one_is_served() {
    virtio::memory::survive_losses().unwrap();
    let host = Host::start();
    let (mut vm, mut front_end) = host.connected();
    vm.truncate();
    // This kick makes the device read its tx queue. The device may answer the request before it
    // drops the client, or may not.
    let _ = vm.client.region_write(0, 0x3004, &[1, 0]);
    wait(&vm.client);
    assert!(vm.client.irq_info(vfio_user::index::MSIX).is_err());
    front_end.closed();
    host.connected();
}
