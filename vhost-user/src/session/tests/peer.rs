//! The session over its socket, driven by the front-end of the `vhost` crate.

use std::os::unix::net::UnixStream;
use std::thread;

use super::*;
use crate::SocketTransport;
use vhost::VhostBackend;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostUserMemoryRegionInfo, VringConfigData};

fn region(file: &std::fs::File, start: u64) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: start,
        memory_size: SIZE,
        userspace_addr: USER + start,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    }
}

#[test]
fn a_whole_conversation() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let device = NullDevice::default();
    let served = device.clone();
    let server = thread::spawn(move || {
        let never = eventfd();
        let mut transport = SocketTransport::connected(theirs).unwrap();
        serve(&mut transport, Arc::new(served), borrow(&never))
    });

    let mut front = Frontend::from_stream(ours, 2);
    front.set_owner().unwrap();
    let features = front.get_features().unwrap();
    assert_eq!(features, EVENT_IDX | PACKED | F_PROTOCOL_FEATURES);
    front.set_features(features & !PACKED).unwrap();
    let protocol = front.get_protocol_features().unwrap();
    front.set_protocol_features(protocol).unwrap();
    front.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    assert_eq!(front.get_queue_num().unwrap(), 2);
    assert_eq!(front.get_max_mem_slots().unwrap(), 509);
    front
        .set_config(0, VhostUserConfigFlags::WRITABLE, &[1, 2, 3, 4])
        .unwrap();
    let (_, config) = front
        .get_config(0, 4, VhostUserConfigFlags::WRITABLE, &[0; 4])
        .unwrap();
    assert_eq!(config, [1, 2, 3, 4]);

    let (first, second) = (anonymous_file(SIZE), anonymous_file(SIZE));
    front.set_mem_table(&[region(&first, 0)]).unwrap();
    front.add_mem_region(&region(&second, 0x10_0000)).unwrap();
    front.set_vring_num(0, 128).unwrap();
    front.set_vring_base(0, 5).unwrap();
    let layout = VringConfigData {
        queue_max_size: 128,
        queue_size: 128,
        flags: 0,
        desc_table_addr: USER + 0x10_0000,
        avail_ring_addr: USER + 0x10_1000,
        used_ring_addr: USER + 0x10_2000,
        log_addr: None,
    };
    front.set_vring_addr(0, &layout).unwrap();
    let (kick, call, error) = (eventfd(), eventfd(), eventfd());
    front.set_vring_call(0, &call).unwrap();
    front.set_vring_err(0, &error).unwrap();
    front.set_vring_kick(0, &kick).unwrap();
    front.set_vring_enable(0, true).unwrap();
    assert_eq!(device.log(), ["start 0 at 5"]);

    let vring = device.last();
    assert_eq!(vring.layout.desc.0, 0x10_0000);
    kick.write(3).unwrap();
    assert_eq!(vring.kick.unwrap().read().unwrap(), 3, "our kick is theirs");
    vring.call.unwrap().notify().unwrap();
    assert_eq!(call.read().unwrap(), 1, "our call is theirs");
    vring.error.unwrap().notify().unwrap();
    assert_eq!(error.read().unwrap(), 1, "our error is theirs");

    assert!(
        front
            .remove_mem_region(&region(&second, 0x20_0000))
            .is_err()
    );
    assert_eq!(
        front.get_vring_base(0).unwrap(),
        5 + 3 + 3,
        "stopped by the removal, too"
    );
    front
        .remove_mem_region(&region(&second, 0x10_0000))
        .unwrap();
    drop(front);
    server.join().unwrap().unwrap();
}
