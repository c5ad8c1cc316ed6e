//! Tests of kicks and doorbells.

use std::time::Instant;

use super::*;

#[test]
fn kicks_are_interrupts() {
    let host = Host::start();
    let (mut vm, mut front_end) = host.connected();
    let kicks = [event(), event(), event()];
    ring(&kicks[0]);
    front_end.send_fds(&number(Code::SET_VRING_KICK, 1), &[kicks[0].as_fd()]);
    assert_eq!(vm.recv().as_number().unwrap(), 1);
    vm.set_notification(1, 4);
    take(&vm.irqs[4]);
    ring(&kicks[0]);
    take(&vm.irqs[4]);

    front_end.send_fds(&number(Code::SET_VRING_KICK, 1), &[kicks[1].as_fd()]);
    vm.recv();
    ring(&kicks[0]);
    vm.link();
    assert!(
        !is_rung(&vm.irqs[4]),
        "the former kick means nothing any more"
    );
    ring(&kicks[1]);
    take(&vm.irqs[4]);

    front_end.send(&number(Code::SET_VRING_KICK, 0x101));
    assert_eq!(vm.recv().as_number().unwrap(), 0x101);
    ring(&kicks[1]);
    vm.link();
    assert!(!is_rung(&vm.irqs[4]), "the driver polls");

    vm.set_notification(15, VECTORS - 1);
    front_end.send_fds(&number(Code::SET_VRING_KICK, 15), &[kicks[2].as_fd()]);
    ring(&kicks[2]);
    take(&vm.irqs[usize::from(VECTORS) - 1]);
}

/// The eventfd has EFD_SEMAPHORE and a large counter, so it stays readable even after many reads.
#[test]
fn a_kick_that_stays_readable_is_one_interrupt() {
    let host = Host::start();
    let (mut vm, mut front_end) = host.connected();
    let kick = eventfd(u32::MAX, EventfdFlags::SEMAPHORE).unwrap();
    vm.set_notification(1, 4);
    front_end.send_fds(&number(Code::SET_VRING_KICK, 1), &[kick.as_fd()]);
    vm.recv();
    take(&vm.irqs[4]);
    for _ in 0..100 {
        vm.link();
    }
    assert!(!is_rung(&vm.irqs[4]));
    ring(&kick);
    take(&vm.irqs[4]);
}

#[test]
fn stopping_a_queue_drops_its_kick_with_the_reply() {
    let host = Host::start();
    let (mut vm, mut front_end) = host.connected();
    let kick = event();
    vm.set_notification(0, 3);
    front_end.send_fds(&number(Code::SET_VRING_KICK, 0), &[kick.as_fd()]);
    front_end.send(&number(Code::GET_VRING_BASE, 0));
    vm.recv();
    let question = vm.recv();
    ring(&kick);
    take(&vm.irqs[3]);
    vm.send(&question.head.reply(&[0, 0, 0, 0, 5, 0, 0, 0]));
    assert_eq!(front_end.recv().payload[4], 5);
    ring(&kick);
    vm.link();
    assert!(!is_rung(&vm.irqs[3]));

    front_end.send(&number(Code::GET_VRING_BASE, u32::MAX.into()));
    let question = vm.recv();
    vm.send(&question.head.reply(&[0xff; 8]));
    assert_eq!(front_end.recv().payload, [0xff; 8]);
}

#[test]
fn doorbells_are_calls_and_errors() {
    let host = Host::start();
    let (mut vm, mut front_end) = host.connected();
    let (call, error) = (event(), event());
    vm.write(2, 0x14, &[5, 0]);
    front_end.send_fds(&number(Code::SET_VRING_CALL, 5), &[call.as_fd()]);
    front_end.send_fds(&number(Code::SET_VRING_ERR, 5), &[error.as_fd()]);
    assert_eq!(vm.recv().as_number().unwrap(), 5);
    vm.recv();
    assert!(!is_rung(&call));
    for width in [1, 2, 4] {
        vm.write(2, 0x14, &[5, 0, 0, 0][..width]);
        take(&call);
    }
    vm.write(2, 4 * (16 + 5), &[5, 0]);
    take(&error);
    vm.write(2, 4 * 32, &[0, 0]);
    let offered = vm.client.region_io_fds(2).unwrap();
    assert_eq!((offered.len(), offered[5].offset), (16, 0x14));
    offered[5].eventfd.signal().unwrap();
    take(&call);
    front_end.send(&number(Code::SET_VRING_CALL, 0x105));
    vm.recv();
    vm.write(2, 0x14, &[5, 0]);
    assert!(!is_rung(&call) && !is_rung(&error));
    assert!(vm.client.region_io_fds(4).unwrap().is_empty());
}

/// Clears O_NONBLOCK of an eventfd and fills its counter, so that the next signal blocks.
fn fill(eventfd: &OwnedFd) {
    rustix::io::ioctl_fionbio(eventfd, false).unwrap();
    rustix::io::write(eventfd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
}

/// A front-end makes its call block. Then the driver rings the doorbell by `ring_doorbell`. The
/// next front-end has to wait for a second, so that such front-ends cost the driver little time.
fn outlive_front_end(ring_doorbell: impl FnOnce(&mut Vm)) {
    let host = Host::start();
    let (mut vm, mut front_end) = host.connected();
    let call = event();
    front_end.send_fds(&number(Code::SET_VRING_CALL, 5), &[call.as_fd()]);
    vm.recv();
    fill(&call);
    let begin = Instant::now();
    ring_doorbell(&mut vm);
    front_end.closed();
    assert_eq!(vm.config_changed(), 0, "the driver hears of it");
    vm.set_up(1);
    let mut next = host.front_end();
    assert_eq!(vm.config_changed(), 3);
    assert!(begin.elapsed() >= Duration::from_secs(1));
    let call = event();
    next.send_fds(&number(Code::SET_VRING_CALL, 5), &[call.as_fd()]);
    vm.recv();
    vm.write(2, 0x14, &[5, 0]);
    take(&call);
}

#[test]
fn a_call_that_blocks_drops_its_front_end_when_the_doorbell_is_written() {
    outlive_front_end(|vm| vm.write(2, 0x14, &[5, 0]));
}

#[test]
fn a_call_that_blocks_drops_its_front_end_when_the_doorbell_is_signalled() {
    outlive_front_end(|vm| {
        let doorbells = vm.client.region_io_fds(2).unwrap();
        doorbells[5].eventfd.signal().unwrap();
    });
}

#[test]
fn an_interrupt_that_blocks_drops_its_vm_and_the_next_one_is_served() {
    let host = Host::start();
    let (mut vm, mut front_end) = host.connected();
    let kick = event();
    vm.set_notification(1, 4);
    front_end.send_fds(&number(Code::SET_VRING_KICK, 1), &[kick.as_fd()]);
    vm.recv();
    fill(&vm.irqs[4]);
    ring(&kick);
    wait(&vm.client);
    front_end.closed();
    let (mut vm, mut front_end) = host.connected();
    vm.set_notification(1, 4);
    front_end.send_fds(&number(Code::SET_VRING_KICK, 1), &[kick.as_fd()]);
    take(&vm.irqs[4]);
}
