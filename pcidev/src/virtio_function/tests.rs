//! Tests of the whole function. The event loop serves a simple device, and the tests act as the
//! driver.

mod driver;
mod garbage;
mod interrupts;
mod lost;
mod raw;
mod toy;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ipc::Listener;
use rustix::event::{EventfdFlags, eventfd};
use vfio_user::{DmaFlags, index};
use virtio::pci::{common, status};

use super::*;
use crate::serve;
use driver::{BUFFERS, Driver, RINGS, SIZE};
use toy::{Toy, Watch};

/// A function that the event loop serves.
struct Host {
    dir: tempfile::TempDir,
    watch: Watch,
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    fn start() -> Self {
        Self::with(|runner| runner)
    }

    /// As [`Host::start`], but `change` modifies the runner first.
    fn with(change: impl FnOnce(Runner) -> Runner + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clients = Listener::bind(&dir.path().join("socket")).unwrap();
        let stop = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let stopped = stop.try_clone().unwrap();
        let (toy, watch) = Toy::new();
        let thread = thread::spawn(move || {
            let runner = change(Runner::new(Arc::new(toy), toy::RINGS));
            let mut function = VirtioFunction::new(runner).unwrap();
            serve(&mut function, &clients, stopped.as_fd()).unwrap();
        });
        Self {
            dir,
            watch,
            stop,
            thread: Some(thread),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    fn driver(&self) -> Driver {
        Driver::connect(&self.path())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        rustix::io::write(&self.stop, &1u64.to_ne_bytes()).unwrap();
        // When the test has failed, the thread may hang.
        if !thread::panicking() {
            let result = self.thread.take().unwrap().join();
            assert!(result.is_ok(), "the function panicked");
        }
    }
}

#[test]
fn the_driver_finds_identity_features_and_configuration() {
    let host = Host::start();
    let mut driver = host.driver();
    let mut config = [0; 256];
    let client = &mut driver.client;
    client.region_read(index::CONFIG, 0, &mut config).unwrap();
    assert_eq!(config[..4], [0xf4, 0x1a, 0x42, 0x10]);
    assert_eq!(config[8..12], [1, 0, 0, 1]);
    assert_eq!(client.irq_info(index::MSIX).unwrap().count, 3);
    assert_eq!(client.region_info(0).unwrap().size, 0x8000);
    assert_eq!(driver.offered(), toy::FEATURES | 1 << 33);
    let mut bytes = [0; 4];
    driver.read(0x2002, &mut bytes);
    assert_eq!(bytes, [3, 4, 0, 0]);
    driver.write(0x2000, &[9]);
    driver.read(0x2000, &mut bytes);
    assert_eq!(bytes, [1, 2, 3, 4], "the driver cannot write it");
}

#[test]
fn requests_on_all_queues_are_served_again_and_again() {
    let host = Host::start();
    let mut driver = host.driver();
    for _ in 0..3 {
        driver.start();
        for queue in 0..2 {
            driver.request(queue, BUFFERS);
            driver.finish(queue, BUFFERS);
        }
        assert_eq!(driver.isr(), 1);
        assert_eq!(driver.isr(), 0);
        driver.reset();
    }
    assert_eq!(host.watch.running(), 0);
}

#[test]
fn each_client_whose_requests_are_not_seen_causes_one_hint() {
    let (sender, hints) = channel();
    let host = Host::with(|runner| {
        let sender = Mutex::new(sender);
        runner.with_hint(move |event| sender.lock().unwrap().send(event.queue).unwrap())
    });
    for queue in 0..2 {
        let mut driver = host.driver();
        driver.start();
        driver.notify(queue.into());
        assert_eq!(hints.recv_timeout(Duration::from_secs(20)), Ok(queue));
    }
    drop(host);
    assert!(hints.recv().is_err(), "a second hint");
}

#[test]
fn a_client_can_signal_an_eventfd_instead_of_notifying() {
    let host = Host::start();
    let mut driver = host.driver();
    driver.start();
    let doorbells = driver.client.region_io_fds(0).unwrap();
    let places: Vec<_> = doorbells
        .iter()
        .map(|bell| (bell.offset, bell.size))
        .collect();
    assert_eq!(places, [(0x3000, 2), (0x3004, 2)]);
    driver.add(1, BUFFERS);
    doorbells[1].eventfd.signal().unwrap();
    driver.finish(1, BUFFERS);
}

#[test]
fn a_queue_that_runs_sees_memory_that_is_added_later() {
    let host = Host::start();
    let mut driver = host.driver();
    driver.start();
    for page in 1..20 {
        let address = SIZE * page;
        driver.map(address, 0x8000, 0x1000);
        driver.request(0, address);
        driver.finish(0, BUFFERS);
        driver.client.dma_unmap(address, 0x1000).unwrap();
    }
    host.watch.wait_starts(2);
}

#[test]
fn memory_in_use_is_given_up_before_the_unmap_is_answered() {
    let host = Host::start();
    let mut driver = host.driver();
    driver.start();
    driver.map(SIZE, 0x8000, 0x1000);
    host.watch.hold();
    driver.request(0, SIZE);
    host.watch.wait_held();
    let watch = host.watch.clone();
    let helper = thread::spawn(move || {
        watch.wait_stopping();
        watch.go_on();
    });
    driver.client.dma_unmap(SIZE, 0x1000).unwrap();
    assert_eq!(
        driver.rings[0].pop_used(),
        Some((0, 1)),
        "the request was completed"
    );
    helper.join().unwrap();
    host.watch.wait_starts(3);
    driver.take_irq(0);
    driver.request(0, BUFFERS);
    driver.finish(0, BUFFERS);
}

#[test]
fn a_request_can_be_in_another_file_than_its_ring() {
    let host = Host::start();
    let mut driver = host.driver();
    driver.start();
    let other = driver.map_other(SIZE);
    driver.request(1, SIZE);
    driver.take_irq(1);
    assert_eq!(
        std::os::unix::fs::FileExt::read_at(&*other, &mut [0], 0).unwrap(),
        1
    );
    driver.client.dma_unmap(SIZE, 0x1000).unwrap();
    driver.rings[1].pop_used().unwrap();
    driver.request(1, BUFFERS);
    driver.finish(1, BUFFERS);
}

#[test]
fn a_notification_for_a_ring_that_is_gone_needs_a_reset() {
    let host = Host::start();
    let mut driver = host.driver();
    driver.start();
    host.watch.wait_starts(2);
    driver.client.dma_unmap(RINGS, 0x1000).unwrap();
    assert_eq!(host.watch.running(), 1);
    driver.notify(0);
    driver.take_irq(driver::CONFIG);
    assert_eq!(driver.status() & status::NEEDS_RESET, status::NEEDS_RESET);
    assert_eq!(driver.isr() & 2, 2);
    assert_eq!(host.watch.running(), 0);
    driver.map(RINGS, RINGS, 0x1000);
    driver.start();
    driver.request(0, BUFFERS);
    driver.finish(0, BUFFERS);
}

#[test]
fn a_broken_ring_needs_a_reset() {
    let host = Host::start();
    let mut driver = host.driver();
    driver.start();
    driver.rings[1].set_avail_index(1000);
    driver.notify(1);
    driver.take_irq(driver::CONFIG);
    assert_eq!(driver.status() & status::NEEDS_RESET, status::NEEDS_RESET);
    driver.start();
    driver.request(1, BUFFERS);
    driver.finish(1, BUFFERS);
}

#[test]
fn rings_may_be_missing_for_a_moment() {
    let host = Host::start();
    let mut driver = host.driver();
    driver.start();
    driver.request(0, BUFFERS);
    driver.finish(0, BUFFERS);
    host.watch.hold();
    driver.request(1, BUFFERS);
    host.watch.wait_held();
    let watch = host.watch.clone();
    let helper = thread::spawn(move || {
        watch.wait_stopping();
        watch.go_on();
    });
    driver.client.dma_unmap(0, SIZE).unwrap();
    helper.join().unwrap();
    assert_eq!(host.watch.running(), 0);
    driver.map(0, 0, SIZE);
    driver.finish(1, BUFFERS);
    for queue in 0..2 {
        driver.request(queue, BUFFERS);
        driver.finish(queue, BUFFERS);
    }
}

#[test]
fn rings_outside_memory_need_a_reset_when_they_are_used() {
    let host = Host::start();
    let mut driver = host.driver();
    driver.client.dma_unmap(0, SIZE).unwrap();
    driver.bring_up();
    assert_eq!(host.watch.running(), 0);
    driver.notify(1);
    assert_eq!(driver.status() & status::NEEDS_RESET, status::NEEDS_RESET);
    driver.take_irq(driver::CONFIG);
}

#[test]
fn a_range_without_a_file_is_accepted_and_is_not_memory() {
    let host = Host::start();
    let mut driver = host.driver();
    let client = &mut driver.client;
    client.dma_unmap(4 * SIZE, 0x1000).unwrap();
    client.dma_unmap(RINGS, 0x1000).unwrap();
    client
        .dma_map_without_file(RINGS, 0x1000, DmaFlags::READ | DmaFlags::WRITE)
        .unwrap();
    driver.bring_up();
    host.watch.wait_starts(1);
    driver.notify(0);
    driver.take_irq(driver::CONFIG);
    assert_eq!(driver.status() & status::NEEDS_RESET, status::NEEDS_RESET);
    driver.client.dma_unmap(RINGS, 0x1000).unwrap();
    driver.map(RINGS, RINGS, 0x1000);
    driver.start();
    driver.request(0, BUFFERS);
    driver.finish(0, BUFFERS);
}

#[test]
fn the_next_client_finds_the_function_as_new() {
    let host = Host::start();
    for way in 0..3 {
        let mut driver = host.driver();
        assert_eq!(driver.status(), 0);
        driver.start();
        driver.request(0, BUFFERS);
        driver.finish(0, BUFFERS);
        match way {
            0 => driver.client.reset().unwrap(),
            1 => driver.function_level_reset(),
            _ => continue,
        }
        assert_eq!(driver.status(), 0);
        assert_eq!(host.watch.running(), 0);
    }
}

#[test]
fn a_foreign_client_uses_the_function() {
    let host = Host::start();
    let mut client = vfio_user_peer::Client::new(&host.path()).unwrap();
    let mut data = [0; 4];
    client.region_read(index::CONFIG, 0, &mut data).unwrap();
    assert_eq!(data, [0xf4, 0x1a, 0x42, 0x10]);
    client.region_write(0, common::DEVICE_STATUS, &[1]).unwrap();
    client
        .region_read(0, common::DEVICE_STATUS, &mut data[..1])
        .unwrap();
    assert_eq!(data[0], 1);
    client
        .set_irqs(index::MSIX, 0x24, 0, 3, &[0; 0])
        .unwrap_or_default();
    client.reset().unwrap();
    client
        .region_read(0, common::DEVICE_STATUS, &mut data[..1])
        .unwrap();
    assert_eq!(data[0], 0);
}
