//! Tests of clients that truncate the file of their memory while a queue runs.

use super::*;
use virtio::memory::survive_losses;

#[test]
fn a_client_that_truncates_its_memory_is_dropped_and_the_next_one_is_served() {
    survive_losses().unwrap();
    let host = Host::start();
    for _ in 0..3 {
        let mut driver = host.driver();
        driver.start();
        driver.request(0, BUFFERS);
        driver.finish(0, BUFFERS);
        let doorbells = driver.client.region_io_fds(0).unwrap();
        driver.truncate();
        doorbells[1].eventfd.signal().unwrap();
        // The client is dropped although it sends nothing.
        driver::wait(&driver.client);
        assert!(driver.client.irq_info(index::MSIX).is_err());
    }
    let mut driver = host.driver();
    driver.start();
    driver.request(0, BUFFERS);
    driver.finish(0, BUFFERS);
}
