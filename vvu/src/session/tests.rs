//! The session against a script of messages, and against a front-end that we did not write.

use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::sync::Mutex;

use super::*;
use crate::transport::ResourceError;
use crate::vhost_user::Flags;
use virtio::queue::PACKED;
use virtio::test_utils::anonymous_file;
use virtio::{ConfigError, Notifier, Region, RunningVring, StartError, Vring};
use vm_memory::{GuestAddress, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

mod peer;

const EVENT_IDX: u64 = 1 << 29;
const USER: u64 = 0x7f00_0000_0000;

/// A device that serves nothing and remembers what it was told.
#[derive(Clone, Default)]
struct NullDevice {
    log: Arc<Mutex<Vec<String>>>,
    vrings: Arc<Mutex<Vec<Vring>>>,
    config: Arc<Mutex<[u8; 16]>>,
}

impl NullDevice {
    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    fn last(&self) -> Vring {
        self.vrings.lock().unwrap().last().unwrap().clone()
    }
}

impl Device for NullDevice {
    fn features(&self) -> u64 {
        EVENT_IDX | PACKED
    }

    fn queue_count(&self) -> u16 {
        2
    }

    fn max_queue_size(&self) -> u16 {
        256
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let config = self.config.lock().unwrap();
        for (at, byte) in data.iter_mut().enumerate() {
            *byte = config.get(offset + at).copied().unwrap_or(0);
        }
    }

    fn write_config(&self, offset: usize, data: &[u8]) -> Result<(), ConfigError> {
        let end = offset + data.len();
        let mut config = self.config.lock().unwrap();
        let target = config
            .get_mut(offset..end)
            .ok_or(ConfigError { offset, end })?;
        target.copy_from_slice(data);
        Ok(())
    }

    fn start(&self, vring: Vring) -> Result<Box<dyn RunningVring>, StartError> {
        self.log
            .lock()
            .unwrap()
            .push(format!("start {} at {}", vring.index, vring.next_avail));
        let (index, next_avail) = (vring.index, vring.next_avail);
        self.vrings.lock().unwrap().push(vring);
        Ok(Box::new(Running {
            device: self.clone(),
            index,
            next_avail,
        }))
    }
}

/// Claims to have served three requests until it is stopped.
struct Running {
    device: NullDevice,
    index: u16,
    next_avail: u16,
}

impl RunningVring for Running {
    fn stop(self: Box<Self>) -> u16 {
        self.device
            .log
            .lock()
            .unwrap()
            .push(format!("stop {}", self.index));
        self.next_avail.wrapping_add(3)
    }
}

/// A front-end whose requests are written down beforehand.
#[derive(Default)]
struct Script {
    events: VecDeque<Event>,
    replies: Vec<Message>,
    dropped: usize,
}

impl Transport for Script {
    fn next(&mut self, _wake: BorrowedFd<'_>) -> Result<Event, TransportError> {
        Ok(self.events.pop_front().unwrap_or(Event::Closed))
    }

    fn reply(&mut self, message: &Message) -> Result<(), TransportError> {
        self.replies.push(message.clone());
        Ok(())
    }

    fn disconnect(&mut self) -> Result<(), TransportError> {
        self.dropped += 1;
        Ok(())
    }

    fn protocol_features(&self, offered: u64) -> u64 {
        offered
    }
}

impl Script {
    /// A front-end that negotiated everything and shared 64 KiB at guest address 0x10000.
    fn negotiated() -> Self {
        Self::default()
            .ask(FrontendReq::SET_OWNER, &[])
            .number(FrontendReq::SET_FEATURES, EVENT_IDX | F_PROTOCOL_FEATURES)
            .number(FrontendReq::SET_PROTOCOL_FEATURES, PROTOCOL_FEATURES.bits())
            .memory(FrontendReq::SET_MEM_TABLE, 0x1_0000, USER)
    }

    fn request(mut self, message: Message, resource: Result<Resource, ResourceError>) -> Self {
        self.events
            .push_back(Event::Request(Request { message, resource }));
        self
    }

    fn ask(self, code: FrontendReq, payload: &[u8]) -> Self {
        self.request(Message::request(code, payload), Ok(Resource::None))
    }

    /// The same with the flag that asks for an acknowledgement.
    fn ask_ack(self, code: FrontendReq, payload: &[u8]) -> Self {
        let mut message = Message::request(code, payload);
        message.flags |= Flags::NEED_REPLY;
        self.request(message, Ok(Resource::None))
    }

    fn number(self, code: FrontendReq, value: u64) -> Self {
        self.ask(code, &value.to_le_bytes())
    }

    fn state(self, code: FrontendReq, index: u32, num: u32) -> Self {
        self.ask(code, VhostUserVringState { index, num }.as_slice())
    }

    fn memory(self, code: FrontendReq, start: u64, user_addr: u64) -> Self {
        let region = Region::map(
            anonymous_file(0x10000),
            0,
            GuestAddress(start),
            0x10000,
            true,
        );
        let region = MemoryRegion {
            region: Arc::new(region.unwrap()),
            user_addr,
        };
        self.request(
            Message::request(code, &[]),
            Ok(Resource::Memory(vec![region])),
        )
    }

    fn addr(self, index: u32, user: u64) -> Self {
        let addr = VhostUserVringAddr {
            index,
            descriptor: user,
            available: user + 0x1000,
            used: user + 0x2000,
            ..Default::default()
        };
        self.ask(FrontendReq::SET_VRING_ADDR, addr.as_slice())
    }

    fn kick(self, queue: u64, eventfd: Option<EventFd>) -> Self {
        let payload = queue | if eventfd.is_none() { 0x100 } else { 0 };
        let message = Message::request(FrontendReq::SET_VRING_KICK, &payload.to_le_bytes());
        self.request(message, Ok(Resource::Kick(eventfd.map(Arc::new))))
    }

    fn notifier(self, code: FrontendReq, queue: u64, notifier: Option<Arc<dyn Notifier>>) -> Self {
        let message = Message::request(code, &queue.to_le_bytes());
        self.request(message, Ok(Resource::Notifier(notifier)))
    }

    /// All that a vring needs but the kick.
    fn vring(self, queue: u32) -> Self {
        self.state(FrontendReq::SET_VRING_NUM, queue, 128)
            .state(FrontendReq::SET_VRING_BASE, queue, 7)
            .addr(queue, USER)
            .state(FrontendReq::SET_VRING_ENABLE, queue, 1)
    }

    fn event(mut self, event: Event) -> Self {
        self.events.push_back(event);
        self
    }

    /// Plays the script to a fresh device. At its end all vrings are stopped.
    fn play(mut self) -> (Self, NullDevice) {
        let device = NullDevice::default();
        let never = eventfd();
        serve(&mut self, Arc::new(device.clone()), borrow(&never)).unwrap();
        assert!(self.events.is_empty());
        (self, device)
    }

    fn last_payload(&self) -> &[u8] {
        &self.replies.last().unwrap().payload
    }
}

fn eventfd() -> EventFd {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).unwrap()
}

fn borrow(eventfd: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the eventfd stays open as long as the borrow lasts.
    unsafe { BorrowedFd::borrow_raw(eventfd.as_raw_fd()) }
}

#[test]
fn offers_what_device_and_session_have() {
    let script = Script::negotiated()
        .ask(FrontendReq::GET_FEATURES, &[])
        .ask(FrontendReq::GET_PROTOCOL_FEATURES, &[])
        .ask(FrontendReq::GET_QUEUE_NUM, &[])
        .ask(FrontendReq::GET_MAX_MEM_SLOTS, &[]);
    let (played, _) = script.play();
    let numbers: Vec<_> = played
        .replies
        .iter()
        .map(|reply| reply.as_u64().unwrap())
        .collect();
    assert_eq!(
        numbers,
        [EVENT_IDX | PACKED | F_PROTOCOL_FEATURES, 0x8209, 2, 509]
    );
    assert!(played.replies.iter().all(|reply| reply.flags.bits() == 5));
}

#[test]
fn a_vring_runs_once_everything_is_there() {
    let kick = eventfd();
    let call: Arc<dyn Notifier> = Arc::new(eventfd());
    let (played, device) = Script::negotiated()
        .notifier(FrontendReq::SET_VRING_CALL, 1, Some(call))
        .vring(1)
        .kick(1, Some(kick))
        .play();
    assert_eq!(device.log(), ["start 1 at 7", "stop 1"]);
    let vring = device.last();
    assert_eq!(vring.features, EVENT_IDX | F_PROTOCOL_FEATURES);
    assert_eq!(vring.layout.size, 128);
    let addresses = [vring.layout.desc, vring.layout.avail, vring.layout.used].map(|addr| addr.0);
    assert_eq!(addresses, [0x1_0000, 0x1_1000, 0x1_2000]);
    assert!(vring.kick.is_some() && vring.call.is_some() && vring.error.is_none());
    assert_eq!(played.dropped, 0);
}

#[test]
fn call_may_come_after_kick() {
    let call = Arc::new(eventfd());
    let (_, device) = Script::negotiated()
        .vring(0)
        .kick(0, Some(eventfd()))
        .notifier(FrontendReq::SET_VRING_CALL, 0, Some(call.clone()))
        .play();
    assert_eq!(
        device.log(),
        ["start 0 at 7", "stop 0", "start 0 at 10", "stop 0"]
    );
    assert!(device.last().call.is_some());
    assert_eq!(call.read().unwrap(), 1, "what was used before is announced");
}

#[test]
fn a_disabled_vring_does_not_run() {
    let script = Script::negotiated()
        .vring(0)
        .state(FrontendReq::SET_VRING_ENABLE, 0, 0);
    let (_, device) = script.kick(0, Some(eventfd())).play();
    assert!(device.log().is_empty());
}

#[test]
fn vrings_are_enabled_by_themselves_without_protocol_features() {
    let (_, device) = Script::default()
        .number(FrontendReq::SET_FEATURES, EVENT_IDX)
        .memory(FrontendReq::SET_MEM_TABLE, 0, USER)
        .state(FrontendReq::SET_VRING_NUM, 0, 64)
        .addr(0, USER)
        .kick(0, None)
        .play();
    assert_eq!(device.log(), ["start 0 at 0", "stop 0"]);
    assert!(device.last().kick.is_none(), "NOFD means polling");
}

#[test]
fn a_packed_vring_has_a_position_in_each_half_of_its_base() {
    // What a front-end says of used buffers does not count: they are where the requests are.
    for (base, start) in [(None, 0x8000u16), (Some(0x5_8007), 0x8007), (Some(0), 0)] {
        let mut script = Script::default()
            .number(FrontendReq::SET_FEATURES, PACKED)
            .memory(FrontendReq::SET_MEM_TABLE, 0, USER)
            .state(FrontendReq::SET_VRING_NUM, 0, 100)
            .addr(0, USER);
        if let Some(base) = base {
            script = script.state(FrontendReq::SET_VRING_BASE, 0, base);
        }
        let (played, device) = script
            .kick(0, None)
            .state(FrontendReq::GET_VRING_BASE, 0, 0)
            .play();
        assert_eq!(
            device.log(),
            [format!("start 0 at {start}"), "stop 0".into()]
        );
        let layout = device.last().layout;
        assert_eq!((layout.packed, layout.size), (true, 100));
        let answer = u32::from(start + 3) * 0x1_0001;
        assert_eq!(played.last_payload()[4..], answer.to_le_bytes());
    }
}

#[test]
fn get_vring_base_stops_and_a_kick_starts_again() {
    let (played, device) = Script::negotiated()
        .vring(0)
        .kick(0, Some(eventfd()))
        .state(FrontendReq::GET_VRING_BASE, 0, 0)
        .state(FrontendReq::SET_VRING_ENABLE, 0, 1)
        .kick(0, Some(eventfd()))
        .play();
    assert_eq!(played.last_payload(), [0, 0, 0, 0, 10, 0, 0, 0]);
    assert_eq!(
        device.log(),
        ["start 0 at 7", "stop 0", "start 0 at 10", "stop 0"]
    );
}

#[test]
fn a_new_memory_table_moves_running_vrings() {
    let (_, device) = Script::negotiated()
        .vring(0)
        .kick(0, Some(eventfd()))
        .memory(FrontendReq::SET_MEM_TABLE, 0x10_0000, USER)
        .play();
    assert_eq!(
        device.log(),
        ["start 0 at 7", "stop 0", "start 0 at 10", "stop 0"]
    );
    assert_eq!(device.last().layout.desc.0, 0x10_0000);
}

#[test]
fn memory_slots_come_and_go() {
    let mut remove = vec![0; 8];
    for field in [0x10_0000u64, 0x10000, USER + 0x10_0000, 0] {
        remove.extend(field.to_le_bytes());
    }
    let (played, device) = Script::negotiated()
        .vring(0)
        .kick(0, Some(eventfd()))
        .memory(FrontendReq::ADD_MEM_REG, 0x10_0000, USER + 0x10_0000)
        .ask_ack(FrontendReq::REM_MEM_REG, &remove)
        .ask_ack(FrontendReq::REM_MEM_REG, &remove)
        .play();
    let acks: Vec<_> = played
        .replies
        .iter()
        .map(|reply| reply.as_u64().unwrap())
        .collect();
    assert_eq!(acks, [0, 1], "the second removal finds nothing");
    let counts = |vring: &Vring| vring.memory.num_regions();
    let regions: Vec<_> = device.vrings.lock().unwrap().iter().map(counts).collect();
    assert_eq!(regions, [1, 2, 1, 1]);
}

#[test]
fn overlapping_memory_is_refused_and_the_old_table_stays() {
    let (played, device) = Script::negotiated()
        .vring(0)
        .memory(FrontendReq::ADD_MEM_REG, 0x1_8000, USER + 0x10_0000)
        .play();
    assert_eq!(played.dropped, 1);
    assert!(device.log().is_empty());
}

#[test]
fn reads_and_writes_the_configuration_space() {
    let access = |offset: u32, size: u32, data: &[u8]| {
        let header = [offset, size, 0].map(u32::to_le_bytes).concat();
        [&header[..], data].concat()
    };
    let (played, _) = Script::negotiated()
        .ask_ack(FrontendReq::SET_CONFIG, &access(8, 2, &[1, 2]))
        .ask(FrontendReq::GET_CONFIG, &access(8, 4, &[0; 4]))
        .ask(FrontendReq::GET_CONFIG, &access(0, 256, &[0; 256]))
        .ask_ack(FrontendReq::SET_CONFIG, &access(15, 2, &[1, 2]))
        .ask_ack(FrontendReq::SET_CONFIG, &access(0, 4, &[1, 2]))
        .ask_ack(FrontendReq::GET_CONFIG, &access(1, 256, &[0; 256]))
        .ask_ack(FrontendReq::GET_CONFIG, &access(u32::MAX, 1, &[0; 1]))
        .ask_ack(FrontendReq::GET_CONFIG, &[0; 11])
        .play();
    let payloads: Vec<_> = played
        .replies
        .iter()
        .map(|reply| reply.payload.clone())
        .collect();
    assert_eq!(payloads[0], [0; 8]);
    assert_eq!(payloads[1], access(8, 4, &[1, 2, 0, 0]));
    assert_eq!(
        payloads[2].len(),
        12 + 256,
        "bytes past the end read as zero"
    );
    assert!(
        payloads[3..]
            .iter()
            .all(|payload| payload == &[1, 0, 0, 0, 0, 0, 0, 0])
    );
    assert_eq!(payloads.len(), 8);
}

/// Each of these is refused: with an acknowledgement that says so where the front-end asked for
/// one, and else by dropping it.
#[test]
fn wrong_requests_are_refused() {
    let state = |index: u32, num: u32| VhostUserVringState { index, num }.as_slice().to_vec();
    let mut addr = vec![0; 40];
    addr[8..16].copy_from_slice(&(USER + 0x10000).to_le_bytes());
    let wrong: Vec<(FrontendReq, Vec<u8>)> = vec![
        (FrontendReq::SET_FEATURES, 1u64.to_le_bytes().to_vec()),
        (
            FrontendReq::SET_PROTOCOL_FEATURES,
            2u64.to_le_bytes().to_vec(),
        ),
        (FrontendReq::SET_VRING_NUM, state(0, 0)),
        (FrontendReq::SET_VRING_NUM, state(0, 3)),
        (FrontendReq::SET_VRING_NUM, state(0, 512)),
        (FrontendReq::SET_VRING_NUM, state(2, 128)),
        (FrontendReq::SET_VRING_NUM, state(u32::MAX, 128)),
        (FrontendReq::SET_VRING_BASE, state(0, 0x1_0000)),
        (FrontendReq::SET_VRING_ENABLE, state(0, 2)),
        (FrontendReq::SET_VRING_ENABLE, state(0x1_0000, 1)),
        (FrontendReq::GET_VRING_BASE, state(u32::MAX, 0)),
        (FrontendReq::SET_VRING_ADDR, addr),
        (FrontendReq::SET_VRING_KICK, vec![0; 8]),
        (FrontendReq::SET_VRING_CALL, vec![0; 8]),
        (FrontendReq::SET_MEM_TABLE, vec![]),
        (FrontendReq::SET_LOG_BASE, vec![0; 16]),
        (FrontendReq::GET_INFLIGHT_FD, vec![0; 24]),
        (FrontendReq::SEND_RARP, vec![0; 8]),
    ];
    for (code, payload) in wrong {
        let (played, _) = Script::negotiated().ask(code, &payload).play();
        assert_eq!(
            (played.dropped, played.replies.len()),
            (1, 0),
            "{code:?} {payload:?}"
        );
        let (played, _) = Script::negotiated().ask_ack(code, &payload).play();
        assert_eq!(
            (played.dropped, played.replies.len()),
            (0, 1),
            "{code:?} {payload:?}"
        );
        assert_eq!(played.replies[0].as_u64(), Ok(1), "{code:?} {payload:?}");
    }
}

#[test]
fn unknown_requests_and_replies_drop_the_front_end() {
    let flags = Flags::VERSION_1;
    let unknown = Message {
        request: 200,
        flags,
        payload: vec![],
    };
    let (played, _) = Script::negotiated()
        .request(unknown, Ok(Resource::None))
        .play();
    assert_eq!(played.dropped, 1);
    let reply = Message::request(FrontendReq::GET_FEATURES, &[]).reply(&[0; 8]);
    let (played, _) = Script::negotiated()
        .request(reply, Ok(Resource::None))
        .play();
    assert_eq!((played.dropped, played.replies.len()), (1, 0));
}

#[test]
fn what_was_not_negotiated_is_refused() {
    let (played, _) = Script::default()
        .ask(FrontendReq::GET_CONFIG, &[0; 12])
        .play();
    assert_eq!(played.dropped, 1);
    // Without REPLY_ACK there is no way to say no but to leave.
    let (played, _) = Script::default()
        .ask_ack(FrontendReq::SET_FEATURES, &[1; 8])
        .play();
    assert_eq!((played.dropped, played.replies.len()), (1, 0));
}

#[test]
fn a_resource_that_cannot_be_used_is_refused() {
    let message = Message::request(FrontendReq::SET_MEM_TABLE, &[]);
    let bad = Err(ResourceError("no such file".into()));
    let (played, _) = Script::negotiated().request(message, bad).play();
    assert_eq!(played.dropped, 1);
}

#[test]
fn the_next_front_end_finds_nothing_of_the_last() {
    let first = Script::negotiated().vring(0).kick(0, Some(eventfd()));
    let (played, device) = first
        .event(Event::Disconnected(None))
        .ask(FrontendReq::GET_FEATURES, &[])
        .kick(0, Some(eventfd()))
        .state(FrontendReq::SET_VRING_ENABLE, 0, 1)
        .play();
    assert_eq!(device.log(), ["start 0 at 7", "stop 0"]);
    assert_eq!(played.replies.len(), 1);
}

#[test]
fn memory_is_unmapped_when_the_front_end_leaves() {
    let script = Script::negotiated();
    let Some(Event::Request(Request {
        resource: Ok(Resource::Memory(regions)),
        ..
    })) = script.events.back()
    else {
        panic!("the last request shares memory");
    };
    let region = Arc::downgrade(&regions[0].region);
    assert_eq!(region.upgrade().unwrap().len(), 0x10000);
    script.event(Event::Disconnected(None)).play();
    assert!(region.upgrade().is_none());
}
