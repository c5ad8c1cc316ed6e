//! Tests of interrupts, with correct clients and with clients that make signals to their eventfds
//! block.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_setfl};
use vfio_user::ClientError;

use super::*;

/// Clears O_NONBLOCK of an eventfd and fills the eventfd's counter, so that the next signal blocks.
fn fill(fd: BorrowedFd<'_>) {
    fcntl_setfl(fd, OFlags::empty()).unwrap();
    rustix::io::write(fd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
}

fn read(fd: impl AsFd) {
    driver::wait(&fd);
    rustix::io::read(&fd, &mut [0; 8]).unwrap();
}

#[test]
fn a_driver_without_msix_has_intx() {
    let host = Host::start();
    let mut driver = host.driver();
    driver.client.disable_irqs(index::MSIX).unwrap();
    assert_eq!(driver.client.irq_info(index::INTX).unwrap().count, 1);
    let mut pin = [0];
    driver
        .client
        .region_read(index::CONFIG, 0x3d, &mut pin)
        .unwrap();
    assert_eq!(pin, [1]);
    let irq = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    driver
        .client
        .set_irqs(index::INTX, 0, &[Some(irq.as_fd())])
        .unwrap();
    driver.bring_up();
    host.watch.wait_starts(2);
    read(&irq);
    assert_eq!(driver.isr(), 1, "the starts of the queues");
    driver.client.unmask_irqs(index::INTX, 0, 1).unwrap();
    for queue in [0, 1, 0] {
        driver.request(queue, BUFFERS);
        read(&irq);
        assert_eq!(driver.isr(), 1);
        assert!(driver.rings[queue].pop_used().is_some());
        driver.client.unmask_irqs(index::INTX, 0, 1).unwrap();
    }
    driver.client.mask_irqs(index::INTX, 0, 1).unwrap();
    driver.rings[1].set_avail_index(1000);
    driver.notify(1);
    while driver.status() & status::NEEDS_RESET == 0 {}
    driver.client.unmask_irqs(index::INTX, 0, 1).unwrap();
    read(&irq);
    assert_eq!(driver.isr(), 2);
}

/// Serves a client that makes a signal block by `attack`, and then the next client. The next client
/// has to wait for a second, so that such clients cost little time.
fn outlive(attack: impl FnOnce(&mut Driver)) {
    let host = Host::start();
    let mut driver = host.driver();
    let begin = Instant::now();
    attack(&mut driver);
    driver::wait(&driver.client);
    let mut next = host.driver();
    assert!(begin.elapsed() >= Duration::from_secs(1));
    next.start();
    for queue in 0..2 {
        next.request(queue, BUFFERS);
        next.finish(queue, BUFFERS);
    }
}

#[test]
fn an_interrupt_that_blocks_the_event_loop_drops_its_client() {
    outlive(|driver| {
        fill(driver.irq(driver::CONFIG));
        let triggered = driver
            .client
            .trigger_irqs(index::MSIX, driver::CONFIG.into(), 1);
        triggered.unwrap();
    });
}

#[test]
fn an_interrupt_that_blocks_a_queue_drops_its_client() {
    outlive(|driver| {
        driver.start();
        fill(driver.irq(0));
        driver.request(0, BUFFERS);
    });
}

#[test]
fn an_intx_that_blocks_drops_its_client() {
    outlive(|driver| {
        let irq = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let set = driver.client.set_irqs(index::INTX, 0, &[Some(irq.as_fd())]);
        set.unwrap();
        fill(irq.as_fd());
        driver.client.trigger_irqs(index::INTX, 0, 1).unwrap();
    });
}

#[test]
fn a_kick_that_blocks_drops_its_client() {
    outlive(|driver| {
        let doorbells = driver.client.region_io_fds(0).unwrap();
        fill(doorbells[0].eventfd.as_fd());
        driver.notify(0);
    });
}

#[test]
fn an_eventfd_without_o_nonblock_kicks_a_queue() {
    let host = Host::start();
    let mut driver = host.driver();
    driver.start();
    let doorbells = driver.client.region_io_fds(0).unwrap();
    fcntl_setfl(&doorbells[1].eventfd, OFlags::empty()).unwrap();
    for _ in 0..3 {
        driver.request(1, BUFFERS);
        driver.finish(1, BUFFERS);
    }
}

#[test]
fn a_client_that_left_kicks_no_queue_of_the_next_one() {
    let host = Host::start();
    let mut driver = host.driver();
    let kept = driver.client.region_io_fds(0).unwrap();
    drop(driver);
    let mut next = host.driver();
    let doorbells = next.client.region_io_fds(0).unwrap();
    kept[0].eventfd.signal().unwrap();
    assert!(!doorbells[0].eventfd.take().unwrap());
}

#[test]
fn the_client_masks_and_triggers_vectors() {
    let host = Host::start();
    let mut driver = host.driver();
    driver.start();
    driver.client.trigger_irqs(index::MSIX, 1, 2).unwrap();
    driver.take_irq(1);
    driver.take_irq(2);
    driver.client.mask_irqs(index::MSIX, 0, 3).unwrap();
    driver.request(0, BUFFERS);
    let mut pending = [0];
    while pending == [0] {
        driver.read(0x7000, &mut pending);
    }
    assert_eq!(pending, [1]);
    driver.client.unmask_irqs(index::MSIX, 0, 1).unwrap();
    driver.finish(0, BUFFERS);
    let beyond = driver.client.mask_irqs(index::MSIX, 2, 2).unwrap_err();
    let refused = matches!(&beyond, ClientError::Refused { source, .. }
        if source.kind() == io::ErrorKind::InvalidInput);
    assert!(refused, "{beyond}");
    driver.client.set_irqs(index::MSIX, 0, &[None]).unwrap();
    driver.request(0, BUFFERS);
    driver.request(1, BUFFERS);
    driver.client.unmask_irqs(index::MSIX, 1, 1).unwrap();
    driver.take_irq(1);
}
