//! Tests of programs in the whole jail with clients whose eventfds block when they are signalled.

use std::os::fd::AsFd;

use ipc::{Interest, SharedEventFd, poll};
use vfio_user::{Client, index};

use super::super::harness::{Folder, PATIENCE};
use super::{BLOCK, PROXY, jailed};

/// Makes the program block when it signals an interrupt. The counter of the interrupt's eventfd is
/// at its maximum, and the eventfd does not have O_NONBLOCK.
fn block_interrupt(client: &mut Client) {
    let interrupt = SharedEventFd::new().unwrap();
    let interrupts = [Some(interrupt.as_fd())];
    client.set_irqs(index::MSIX, 0, &interrupts).unwrap();
    rustix::io::write(&interrupt, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    rustix::io::ioctl_fionbio(&interrupt, false).unwrap();
    client.trigger_irqs(index::MSIX, 0, 1).unwrap();
}

#[test]
fn a_client_whose_interrupt_blocks_is_dropped_inside_the_whole_jail() {
    for (program, arguments) in [
        (BLOCK, "--virtio-pci-socket pci.sock disk.img"),
        (
            PROXY,
            "--socket-path vu.sock --vfio-user-path pci.sock --any-memory-file \
             --memory ram,size=1M",
        ),
    ] {
        let folder = Folder::new();
        let running = jailed(&folder, program, arguments);
        let socket = folder.path("pci.sock");
        let mut client = Client::connect(&socket, PATIENCE).unwrap();
        block_interrupt(&mut client);
        let [dropped] = poll([Interest::readable(&client)], Some(PATIENCE)).unwrap();
        assert!(dropped, "{program}");
        let mut next = Client::connect(&socket, PATIENCE).unwrap();
        next.device_info().unwrap();
        running.signal(libc::SIGTERM);
        let output = running.output();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
}
