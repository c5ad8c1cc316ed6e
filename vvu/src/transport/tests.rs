use vhost_user::{
    Absent, AttachError, Attached, Code, Flags, MemoryRegion, MemoryTable, RequestError,
};
use virtio::pci::NO_VECTOR;
use vm_memory::GuestMemoryRegion;

use std::os::fd::AsFd;

use super::*;
use crate::driver::tests::{IMPATIENT, PATIENT};
use crate::pci::mock::{MockFunction, Profile};
use ipc::SharedEventFd;

mod failures;
mod vectors;

/// A transport over a mock device with a front-end, and an eventfd that wakes the transport.
struct Setup {
    mock: Arc<MockFunction>,
    transport: VvuTransport,
    wake: SharedEventFd,
}

impl Setup {
    fn new(profile: Profile, patience: Patience) -> Self {
        let mock = MockFunction::new(profile);
        let transport = VvuTransport::with_patience(mock.clone(), 4, None, patience).unwrap();
        mock.state().connect();
        Self {
            mock,
            transport,
            wake: SharedEventFd::new().unwrap(),
        }
    }

    fn ours() -> Self {
        Self::new(Profile::ours(), IMPATIENT)
    }

    fn try_next(&mut self) -> Result<Event, TransportError> {
        self.transport.next([self.wake.as_fd(); 2])
    }

    fn next(&mut self) -> Event {
        self.try_next().unwrap()
    }

    fn request(&mut self) -> Incoming {
        match self.next() {
            Event::Request(incoming) => incoming,
            other => panic!("{other:?}"),
        }
    }

    /// Makes the front-end send a message, and returns the request that the transport receives.
    fn send(&mut self, message: &Message) -> Result<Request<Attached>, RequestError> {
        self.mock.state().deliver(&message.encode());
        let incoming = self.request();
        assert_eq!(incoming.head, message.head);
        incoming.request
    }

    fn reply(&mut self, to: &Message, payload: &[u8]) {
        let reply = Reply::bytes(payload.to_vec());
        self.transport.reply(to.head, reply).unwrap();
    }

    /// Checks that the transport has no event to report.
    fn assert_idle(&mut self) {
        self.wake.signal().unwrap();
        assert!(matches!(self.next(), Event::Woken));
        self.wake.take().unwrap();
        self.transport.config_changed().unwrap();
        assert!(self.transport.gone.is_none());
        assert!(!self.transport.driver.channel().unwrap().has_message());
    }

    fn assert_left(&mut self) {
        let event = self.next();
        assert!(matches!(event, Event::Left), "{event:?}");
    }

    fn assert_dropped(&mut self, reason: &str) {
        match self.next() {
            Event::Dropped(actual) => assert_eq!(WithCauses(&actual).to_string(), reason),
            other => panic!("{other:?}"),
        }
    }

    /// Checks that the device is set up for a new front-end and that the transport serves the new
    /// front-end.
    fn assert_serves_the_next(&mut self) {
        assert_eq!(self.mock.state().config_status, 1);
        assert_eq!(self.mock.state().notifications[..4], [3, 4, 5, 6]);
        self.mock.state().connect();
        self.send(&get_features()).unwrap();
        self.reply(&get_features(), &[0; 8]);
        let sent = self.mock.state().sent.pop();
        assert_eq!(sent, Some(get_features().head.reply(&[0; 8]).encode()));
        assert!(self.mock.state().stray.is_empty());
    }
}

fn get_features() -> Message {
    Message::request(Code::GET_FEATURES.number(), &[])
}

fn vring(code: Code, payload: u64) -> Message {
    Message::request(code.number(), &payload.to_le_bytes())
}

fn mem_table(file_offset: u64) -> Message {
    let region = MemoryRegion {
        guest_addr: 0,
        size: 0x10_0000,
        user_addr: 0x7f00_0000_0000,
        file_offset,
        memory: Absent,
    };
    let table = MemoryTable::new(vec![region]).unwrap();
    Request::<Absent>::SetMemTable(table).encode().0
}

fn number(request: u32) -> Message {
    Message::request(request, &[])
}

fn is_readable(eventfd: &SharedEventFd) -> bool {
    poll([Interest::readable(eventfd)], Some(Duration::ZERO)).unwrap()[0]
}

#[test]
fn a_message_may_come_before_the_frontend_does() {
    let mut setup = Setup::ours();
    setup.mock.state().config_status = 1;
    clear(setup.transport.driver.config_event());
    setup.send(&get_features()).unwrap();
    setup.mock.state().connect();
    setup.assert_idle();
    setup.mock.state().leave();
    setup.assert_left();
}

#[test]
fn messages_keep_their_order_when_buffers_run_out() {
    for queue_size in [1, 2] {
        let profile = Profile {
            queue_size,
            ..Profile::ours()
        };
        let mut setup = Setup::new(profile, IMPATIENT);
        for request in [100, 101, 102, 103] {
            setup.mock.state().deliver(&number(request).encode());
        }
        for request in [100, 101, 102, 103] {
            assert_eq!(setup.request().head.request, request);
        }
        setup.assert_idle();
    }
}

#[test]
fn buffers_may_be_used_in_any_order() {
    let mut setup = Setup::ours();
    setup.mock.state().reverse_rx();
    for round in 0..40 {
        for request in [100 + round, 200 + round, 300 + round] {
            setup.mock.state().deliver(&number(request).encode());
        }
        for request in [100 + round, 200 + round, 300 + round] {
            assert_eq!(setup.request().head.request, request);
        }
    }
}

#[test]
fn requests_that_nobody_knows_pass() {
    let mut setup = Setup::ours();
    let request = setup.send(&number(200)).unwrap();
    assert!(matches!(request, Request::Raw { number: 200, .. }));
    let stop = setup
        .send(&vring(Code::GET_VRING_BASE, 0xffff_ffff))
        .unwrap();
    assert!(matches!(stop, Request::GetVringBase(state) if state.index == u32::MAX));
}

type Received = Result<Request<Attached>, RequestError>;

fn kick_of(request: Received) -> Option<Arc<SharedEventFd>> {
    match request.unwrap() {
        Request::SetVringKick(kick) => kick.fd,
        other => panic!("{other:?}"),
    }
}

fn notifier_of(request: Received) -> Option<Arc<dyn virtio::Notifier>> {
    match request.unwrap() {
        Request::SetVringCall(notifier) | Request::SetVringErr(notifier) => notifier.fd,
        other => panic!("{other:?}"),
    }
}

#[test]
fn kicks_signal_the_eventfd_of_their_queue() {
    let mut setup = Setup::ours();
    let kicks: Vec<_> = (0..4)
        .map(|queue| kick_of(setup.send(&vring(Code::SET_VRING_KICK, queue))).unwrap())
        .collect();
    kicks.iter().for_each(|kick| clear(kick));
    setup.mock.state().kick(2);
    let readable: Vec<_> = kicks.iter().map(|kick| is_readable(kick)).collect();
    assert_eq!(readable, [false, false, true, false]);
}

#[test]
fn a_kick_that_came_first_is_not_lost() {
    let mut setup = Setup::ours();
    setup.mock.state().kick(1);
    let kick = kick_of(setup.send(&vring(Code::SET_VRING_KICK, 1))).unwrap();
    assert!(is_readable(&kick));
    clear(&kick);
    let again = kick_of(setup.send(&vring(Code::SET_VRING_KICK, 1))).unwrap();
    assert!(
        is_readable(&again),
        "nor one that was lost before the vector was known"
    );
}

#[test]
fn without_file_descriptors_there_are_no_kicks_and_calls() {
    let mut setup = Setup::ours();
    assert!(kick_of(setup.send(&vring(Code::SET_VRING_KICK, 0x100))).is_none());
    assert!(notifier_of(setup.send(&vring(Code::SET_VRING_CALL, 0x101))).is_none());
    assert!(notifier_of(setup.send(&vring(Code::SET_VRING_ERR, 0x101))).is_none());
}

#[test]
fn calls_and_errors_ring_doorbells_whatever_came_first() {
    let mut setup = Setup::ours();
    let call = notifier_of(setup.send(&vring(Code::SET_VRING_CALL, 1))).unwrap();
    kick_of(setup.send(&vring(Code::SET_VRING_KICK, 1))).unwrap();
    let late = notifier_of(setup.send(&vring(Code::SET_VRING_CALL, 1))).unwrap();
    let error = notifier_of(setup.send(&vring(Code::SET_VRING_ERR, 3))).unwrap();
    for doorbell in [call, late, error] {
        doorbell.notify().unwrap();
    }
    let rung = setup.mock.state().rung.clone();
    assert_eq!(
        rung,
        [(4, vec![1, 0]), (4, vec![1, 0]), (19 * 4, vec![3, 0])]
    );
}

#[test]
fn a_dialect_without_error_doorbells_leaves_errors_unsaid() {
    let mut setup = Setup::new(Profile::qemu(), IMPATIENT);
    assert!(notifier_of(setup.send(&vring(Code::SET_VRING_ERR, 1))).is_none());
}

#[test]
fn vrings_that_are_not_there_are_the_frontends_mistake() {
    let mut setup = Setup::ours();
    for code in [
        Code::SET_VRING_KICK,
        Code::SET_VRING_CALL,
        Code::SET_VRING_ERR,
    ] {
        let error = setup.send(&vring(code, 4)).unwrap_err();
        let missing = matches!(error, RequestError::Attach(AttachError::NoSuchVring(4)));
        assert!(missing, "{error}");
        let short = Message::request(code.number(), &[0; 7]);
        assert!(setup.send(&short).is_err());
    }
}

#[test]
fn a_second_memory_table_is_mapped_like_the_first() {
    let mut setup = Setup::ours();
    for offset in [0, 0x1000, 0] {
        let Ok(Request::SetMemTable(table)) = setup.send(&mem_table(offset)) else {
            panic!("no memory");
        };
        let memory = &table.regions()[0].memory;
        assert_eq!(memory.len(), 0x10_0000);
        let place = memory.file_offset().unwrap().start();
        assert_eq!(place, offset, "our dialect leaves a gap before the region");
    }
    let too_far = setup.send(&mem_table(1 << 40)).unwrap_err();
    assert!(too_far.to_string().contains("give the device a larger BAR"));
}

#[test]
fn the_caller_can_be_woken_and_the_frontend_be_sent_away() {
    let mut setup = Setup::ours();
    setup.assert_idle();
    setup.send(&get_features()).unwrap();
    setup.transport.disconnect().unwrap();
    assert!(!setup.mock.state().peer);
    setup.assert_idle();
    setup.assert_serves_the_next();
}

#[test]
fn protocol_features_that_need_descriptors_do_not_cross() {
    let setup = Setup::ours();
    let crossing = |offered| setup.transport.protocol_features(offered).bits();
    let everything = crossing(ProtocolFeatures::all());
    assert_eq!(everything & 0x209, 0x209, "MQ, REPLY_ACK, CONFIG");
    assert_eq!(everything & (1 << 1 | 1 << 12 | 1 << 15), 0);
    assert_eq!(crossing(ProtocolFeatures::from_bits_retain(0x1008)), 8);
}

#[test]
fn dropping_the_transport_shuts_the_device_down() {
    let Setup {
        mock, transport, ..
    } = Setup::ours();
    drop(transport);
    let state = mock.state();
    assert_eq!((state.status, state.config_status), (0, 0));
    assert!(state.vectors.is_empty() && state.dma.is_none());
    assert!(
        state
            .notifications
            .iter()
            .all(|vector| *vector == NO_VECTOR)
    );
}
