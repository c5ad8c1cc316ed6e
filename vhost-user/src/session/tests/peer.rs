//! Tests of the session over its socket, with the front-end of this crate and with the front-end of
//! the `vhost` crate.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use super::*;
use crate::{FrontEnd, FrontEndError, SocketTransport, VringSetup};
use vhost::VhostBackend;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

fn region_info(file: &std::fs::File, start: u64) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: start,
        memory_size: SIZE,
        userspace_addr: USER + start,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    }
}

fn serve_in_thread(
    stream: UnixStream,
    device: Recorder,
) -> thread::JoinHandle<Result<(), TransportError>> {
    thread::spawn(move || {
        let never = eventfd();
        let mut transport = SocketTransport::connected(stream).unwrap();
        let mut runner = Runner::new(Arc::new(device), RINGS);
        serve(&mut transport, &mut runner, never.as_fd())
    })
}

#[test]
fn a_conversation_with_our_front_end() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let device = Recorder::default();
    let server = serve_in_thread(theirs, device.clone());
    let mut front = FrontEnd::new(ours, Duration::from_secs(20)).unwrap();
    let all = ProtocolFeatures::all();
    let features = front.negotiate(!PACKED, all).unwrap();
    assert_eq!(features, OFFERED & !PACKED);
    assert_eq!(front.get_queue_num().unwrap(), 2);
    let write = ConfigAccess::write(0, &[1, 2, 3, 4]);
    front.request(Request::SetConfig(write)).unwrap();
    assert_eq!(front.get_config(0, 4).unwrap(), [1, 2, 3, 4]);
    assert!(front.get_config(0x100, 8).is_err(), "refused, and goes on");

    let file = anonymous_file(SIZE);
    let shared = region(0, USER).with(file.as_fd());
    let table = || MemoryTable::new(vec![shared]).unwrap();
    front.request(Request::SetMemTable(table())).unwrap();
    let again = front.request(Request::AddMemReg(table()));
    assert!(matches!(again, Err(FrontEndError::Refused(_))), "{again:?}");
    let (kick, call) = (eventfd(), eventfd());
    let vring = VringSetup {
        size: 128,
        base: 5,
        addr: VringAddr {
            index: 1,
            desc: USER,
            avail: USER + 0x1000,
            used: USER + 0x2000,
            ..VringAddr::default()
        },
        kick: Some(kick.as_fd()),
        call: Some(call.as_fd()),
    };
    front.start_vring(&vring).unwrap();
    device.wait_started();
    assert_eq!(device.log().last().unwrap(), "start 1 at 5");
    assert_eq!(front.get_vring_base(1).unwrap(), 5);
    drop(front);
    server.join().unwrap().unwrap();
}

#[test]
fn a_conversation_with_a_front_end_that_we_did_not_write() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let device = Recorder::default();
    let server = serve_in_thread(theirs, device.clone());

    let mut front = Frontend::from_stream(ours, 2);
    front.set_owner().unwrap();
    let features = front.get_features().unwrap();
    assert_eq!(features, OFFERED);
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
    front.set_mem_table(&[region_info(&first, 0)]).unwrap();
    front
        .add_mem_region(&region_info(&second, 0x10_0000))
        .unwrap();
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
    let eventfd = || EventFd::new(EFD_NONBLOCK).unwrap();
    let (kick, call, error) = (eventfd(), eventfd(), eventfd());
    front.set_vring_call(0, &call).unwrap();
    front.set_vring_err(0, &error).unwrap();
    front.set_vring_kick(0, &kick).unwrap();
    front.set_vring_enable(0, true).unwrap();
    device.wait_started();
    assert_eq!(device.log(), ["start 0 at 5"]);
    assert_eq!(call.read().unwrap(), 1, "a vring that starts calls");

    let vring = device.last();
    assert_eq!(vring.layout.desc.0, 0x10_0000);
    kick.write(3).unwrap();
    assert!(vring.kick.unwrap().take().unwrap(), "our kick is theirs");
    front.set_vring_call(0, &call).unwrap();
    let (features, calls) = (front.get_features(), call.read());
    assert!(features.is_ok(), "what came before is done");
    assert_eq!(
        calls.unwrap(),
        1,
        "a running vring is called by its new call"
    );

    assert!(
        front
            .remove_mem_region(&region_info(&second, 0x20_0000))
            .is_err()
    );
    assert_eq!(
        front.get_vring_base(0).unwrap(),
        5,
        "a removal that is refused changes nothing"
    );
    front
        .remove_mem_region(&region_info(&second, 0x10_0000))
        .unwrap();
    drop(front);
    server.join().unwrap().unwrap();
}
