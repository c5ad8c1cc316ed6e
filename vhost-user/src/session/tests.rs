//! Tests of the session with scripted messages, and with the front-end of another project.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::*;
use crate::features::F_PROTOCOL_FEATURES;
use crate::memory::{MAX_SLOTS, MemoryRegion, MemoryTable};
use crate::message::Message;
use crate::payload::{ConfigAccess, VringAddr, VringFd, VringState};
use crate::request::Request;
use crate::resources::{Absent, Attach, AttachError, Attached, Signal};
use crate::table::Code;
use ipc::SharedEventFd;
use virtio::queue::{PACKED, RING_FEATURES};
use virtio::test_utils::anonymous_file;
use virtio::{
    ConfigError, Device, DeviceKind, Notifier, Region, RingOptions, ServeError, ServedQueue,
    VringLayout, Wake,
};
use vm_memory::{GuestAddress, GuestMemoryRegion};

mod device;
mod failures;
mod lost;
mod peer;
mod script;

use device::Recorder;
use script::{Script, Stand, eventfd, region, state, table};

const EVENT_IDX: u64 = 1 << 29;
/// The one device-specific feature bit that the test device offers.
const OWN: u64 = 1 << 5;
/// All features that the session offers, VERSION_1 included.
const OFFERED: u64 = OWN | RING_FEATURES | PACKED | 1 << 32 | F_PROTOCOL_FEATURES;
const RINGS: RingOptions = RingOptions {
    max_size: 256,
    packed: true,
    in_order: false,
};
const USER: u64 = 0x7f00_0000_0000;
const SIZE: u64 = 0x10000;

#[test]
fn offers_what_device_and_session_have() {
    let script = Script::negotiated()
        .ask(Request::GetFeatures)
        .ask(Request::GetProtocolFeatures)
        .ask(Request::GetQueueNum)
        .ask(Request::GetMaxMemSlots);
    let (played, _) = script.play();
    let offered = OFFERED;
    assert_eq!(played.numbers(), [offered, 0x8209, 2, MAX_SLOTS as u64]);
    assert!(
        played
            .replies
            .iter()
            .all(|reply| reply.head.flags.bits() == 5)
    );
}

#[test]
fn a_vring_runs_once_everything_is_there() {
    let kick = eventfd();
    let call: Arc<dyn Notifier> = Arc::new(eventfd());
    let (played, device) = Script::negotiated()
        .call(1, Some(call))
        .vring(1)
        .kick(1, Some(kick))
        .play();
    assert_eq!(device.log(), ["start 1 at 7", "stop 1"]);
    let vring = device.last();
    assert_eq!(vring.features, EVENT_IDX | F_PROTOCOL_FEATURES);
    assert_eq!(vring.layout.size, 128);
    let addresses = [vring.layout.desc, vring.layout.avail, vring.layout.used].map(|addr| addr.0);
    assert_eq!(addresses, [0x1_0000, 0x1_1000, 0x1_2000]);
    assert!(vring.kick.is_some());
    assert_eq!(played.dropped, 0);
}

#[test]
fn call_may_come_after_kick() {
    let call = Arc::new(eventfd());
    let (_, device) = Script::negotiated()
        .vring(0)
        .kick(0, Some(eventfd()))
        .call(0, Some(call.clone()))
        .play();
    assert_eq!(
        device.log(),
        ["start 0 at 7", "stop 0"],
        "nothing is restarted"
    );
    assert!(call.take().unwrap(), "what was used before is announced");
}

#[test]
fn a_disabled_vring_does_not_run() {
    let script = Script::negotiated()
        .vring(0)
        .ask(Request::SetVringEnable(state(0, 0)));
    let (_, device) = script.kick(0, Some(eventfd())).play();
    assert!(device.log().is_empty());
}

#[test]
fn vrings_are_enabled_by_themselves_without_protocol_features() {
    let (_, device) = Script::default()
        .ask(Request::SetFeatures(EVENT_IDX))
        .ask(Request::SetMemTable(table(0, USER)))
        .ask(Request::SetVringNum(state(0, 64)))
        .addr(0, USER)
        .kick(0, None)
        .play();
    assert_eq!(device.log(), ["start 0 at 0", "stop 0"]);
    assert!(device.last().kick.is_none(), "NOFD means polling");
}

#[test]
fn a_packed_vring_has_a_position_in_each_half_of_its_base() {
    // The session ignores the upper half of the base, which is the position of the next used
    // buffer. In a stopped vring, both halves have the same value.
    for (base, start) in [(None, 0x8000u16), (Some(0x5_8007), 0x8007), (Some(0), 0)] {
        let mut script = Script::default()
            .ask(Request::SetFeatures(PACKED))
            .ask(Request::SetMemTable(table(0, USER)))
            .ask(Request::SetVringNum(state(0, 100)))
            .addr(0, USER);
        if let Some(base) = base {
            script = script.ask(Request::SetVringBase(state(0, base)));
        }
        let (played, device) = script
            .kick(0, None)
            .ask(Request::GetVringBase(state(0, 0)))
            .play();
        assert_eq!(
            device.log(),
            [format!("start 0 at {start}"), "stop 0".into()]
        );
        let layout = device.last().layout;
        assert_eq!((layout.packed, layout.size), (true, 100));
        let answer = u32::from(start) * 0x1_0001;
        assert_eq!(played.last_payload()[4..], answer.to_le_bytes());
    }
}

#[test]
fn get_vring_base_stops_and_a_kick_starts_again() {
    let (played, device) = Script::negotiated()
        .vring(0)
        .kick(0, Some(eventfd()))
        .ask(Request::GetVringBase(state(0, 0)))
        .ask(Request::SetVringEnable(state(0, 1)))
        .kick(0, Some(eventfd()))
        .play();
    assert_eq!(played.last_payload(), [0, 0, 0, 0, 7, 0, 0, 0]);
    assert_eq!(
        device.log(),
        ["start 0 at 7", "stop 0", "start 0 at 7", "stop 0"]
    );
}

#[test]
fn a_new_memory_table_moves_running_vrings() {
    let (_, device) = Script::negotiated()
        .vring(0)
        .kick(0, Some(eventfd()))
        .ask(Request::SetMemTable(table(0x10_0000, USER)))
        .play();
    assert_eq!(
        device.log(),
        ["start 0 at 7", "stop 0", "start 0 at 7", "stop 0"]
    );
    assert_eq!(device.last().layout.desc.0, 0x10_0000);
}

#[test]
fn memory_slots_come_and_go() {
    let remove = || Request::RemMemReg(region(0x10_0000, USER + 0x10_0000).with(()));
    let (played, device) = Script::negotiated()
        .vring(0)
        .kick(0, Some(eventfd()))
        .ask(Request::AddMemReg(table(0x10_0000, USER + 0x10_0000)))
        .ask_ack(remove())
        .ask_ack(remove())
        .play();
    assert_eq!(played.numbers(), [0, 1], "the second removal finds nothing");
    let vrings = device.vrings.lock().unwrap();
    let regions: Vec<_> = vrings.iter().map(|vring| vring.regions).collect();
    assert_eq!(regions, [1, 2, 1]);
}

#[test]
fn the_configuration_space_is_read_and_written() {
    let (played, _) = Script::negotiated()
        .ask_ack(Request::SetConfig(ConfigAccess::write(8, &[1, 2])))
        .ask(Request::GetConfig(ConfigAccess::read(8, 4)))
        .ask(Request::GetConfig(ConfigAccess::read(0, 256)))
        .play();
    let payloads: Vec<_> = played.replies.iter().map(|reply| &reply.payload).collect();
    assert_eq!(payloads[0], &[0; 8]);
    assert_eq!(*payloads[1], ConfigAccess::write(8, &[1, 2, 0, 0]).encode());
    assert_eq!(
        payloads[2].len(),
        12 + 256,
        "bytes past the end read as zero"
    );
}

#[test]
fn the_next_front_end_finds_nothing_of_the_last() {
    let first = Script::negotiated().vring(0).kick(0, Some(eventfd()));
    let (played, device) = first
        .event(Event::Left)
        .ask(Request::GetFeatures)
        .kick(0, Some(eventfd()))
        .ask(Request::SetVringEnable(state(0, 1)))
        .play();
    assert_eq!(device.log(), ["start 0 at 7", "stop 0"]);
    assert_eq!(played.replies.len(), 1);
}

#[test]
fn memory_is_unmapped_when_the_front_end_leaves() {
    let script = Script::negotiated();
    let Some(Event::Request(Incoming {
        request: Ok(Request::SetMemTable(table)),
        ..
    })) = script.events.back()
    else {
        panic!("the last request shares memory");
    };
    let region = Arc::downgrade(&table.regions()[0].memory);
    assert_eq!(region.upgrade().unwrap().len(), SIZE);
    script.event(Event::Left).play();
    assert!(region.upgrade().is_none());
}
