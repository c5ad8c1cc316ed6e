use std::os::fd::AsFd;

use vhost::vhost_user::message::FrontendReq;
use vhost::vhost_user::message::VhostUserMemoryRegion;
use virtio::pci::NO_VECTOR;
use vm_memory::GuestMemoryRegion;

use super::*;
use crate::driver::tests::{IMPATIENT, PATIENT};
use crate::pci::mock::{MockFunction, Profile};
use crate::transport::Resource;
use crate::vhost_user::{Flags, encode_regions};
use vmm_sys_util::eventfd::EventFd;

mod failures;
mod vectors;

/// A transport over a mock device with a front-end, and how to talk to both.
struct Setup {
    mock: Arc<MockFunction>,
    transport: VvuTransport,
    wake: EventFd,
}

impl Setup {
    fn new(profile: Profile, patience: Patience) -> Self {
        let mock = MockFunction::new(profile);
        let transport = VvuTransport::with_patience(mock.clone(), 4, None, patience).unwrap();
        mock.state().connect();
        Self {
            mock,
            transport,
            wake: EventFd::new(0).unwrap(),
        }
    }

    fn ours() -> Self {
        Self::new(Profile::ours(), IMPATIENT)
    }

    fn try_next(&mut self) -> Result<Event, TransportError> {
        self.transport.next(borrow(&self.wake))
    }

    fn next(&mut self) -> Event {
        self.try_next().unwrap()
    }

    fn request(&mut self) -> Request {
        match self.next() {
            Event::Request(request) => request,
            other => panic!("{other:?}"),
        }
    }

    /// Has the front-end send this, and returns what the transport makes of it.
    fn send(&mut self, message: &Message) -> Request {
        self.mock.state().deliver(&message.encode());
        let request = self.request();
        assert_eq!(request.message, *message);
        request
    }

    /// Checks that nothing is to be said.
    fn assert_idle(&mut self) {
        self.wake.write(1).unwrap();
        assert!(matches!(self.next(), Event::Woken));
        self.wake.read().unwrap();
        self.transport.config_changed().unwrap();
        assert!(self.transport.gone.is_none());
        assert!(!self.transport.driver.channel().unwrap().has_message());
    }

    fn assert_disconnected(&mut self, reason: Option<&str>) {
        match self.next() {
            Event::Disconnected(actual) => assert_eq!(actual.as_deref(), reason),
            other => panic!("{other:?}"),
        }
    }

    /// Checks that a new front-end is served as the first was.
    fn assert_serves_the_next(&mut self) {
        assert_eq!(self.mock.state().config_status, 1);
        assert_eq!(self.mock.state().notifications[..4], [3, 4, 5, 6]);
        self.mock.state().connect();
        self.send(&get_features());
        self.transport
            .reply(&get_features().reply(&[0; 8]))
            .unwrap();
        let sent = self.mock.state().sent.pop();
        assert_eq!(sent, Some(get_features().reply(&[0; 8]).encode()));
        assert!(self.mock.state().stray.is_empty());
    }
}

fn get_features() -> Message {
    Message::request(FrontendReq::GET_FEATURES, &[])
}

fn vring(request: FrontendReq, payload: u64) -> Message {
    Message::request(request, &payload.to_le_bytes())
}

fn mem_table(offset: u64) -> Message {
    let regions = [VhostUserMemoryRegion::new(
        0,
        0x10_0000,
        0x7f00_0000_0000,
        offset,
    )];
    Message::request(FrontendReq::SET_MEM_TABLE, &encode_regions(&regions))
}

fn number(request: u32) -> Message {
    Message {
        request,
        flags: Flags::VERSION_1,
        payload: Vec::new(),
    }
}

fn is_readable(eventfd: &EventFd) -> bool {
    poll_readable(&[borrow(eventfd)], Some(Duration::ZERO)).unwrap()[0]
}

#[test]
fn a_message_may_come_before_the_frontend_does() {
    let mut setup = Setup::ours();
    setup.mock.state().config_status = 1;
    clear(setup.transport.driver.config_event());
    setup.send(&get_features());
    setup.mock.state().connect();
    setup.assert_idle();
    setup.mock.state().leave();
    setup.assert_disconnected(None);
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
            assert_eq!(setup.request().message.request, request);
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
            assert_eq!(setup.request().message.request, request);
        }
    }
}

#[test]
fn requests_that_nobody_knows_pass() {
    let mut setup = Setup::ours();
    let request = setup.send(&number(200));
    assert!(matches!(request.resource, Ok(Resource::None)));
    let stop = vring(FrontendReq::GET_VRING_BASE, 0xffff_ffff);
    assert!(matches!(setup.send(&stop).resource, Ok(Resource::None)));
}

fn kick_of(request: Request) -> Option<Arc<EventFd>> {
    match request.resource.unwrap() {
        Resource::Kick(kick) => kick,
        other => panic!("{other:?}"),
    }
}

fn notifier_of(request: Request) -> Option<Arc<dyn virtio::Notifier>> {
    match request.resource.unwrap() {
        Resource::Notifier(notifier) => notifier,
        other => panic!("{other:?}"),
    }
}

#[test]
fn kicks_signal_the_eventfd_of_their_queue() {
    let mut setup = Setup::ours();
    let kicks: Vec<_> = (0..4)
        .map(|queue| kick_of(setup.send(&vring(FrontendReq::SET_VRING_KICK, queue))).unwrap())
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
    let kick = kick_of(setup.send(&vring(FrontendReq::SET_VRING_KICK, 1))).unwrap();
    assert!(is_readable(&kick));
    clear(&kick);
    let again = kick_of(setup.send(&vring(FrontendReq::SET_VRING_KICK, 1))).unwrap();
    assert!(
        is_readable(&again),
        "nor one that was lost before the vector was known"
    );
}

#[test]
fn without_file_descriptors_there_are_no_kicks_and_calls() {
    let mut setup = Setup::ours();
    assert!(kick_of(setup.send(&vring(FrontendReq::SET_VRING_KICK, 0x100))).is_none());
    assert!(notifier_of(setup.send(&vring(FrontendReq::SET_VRING_CALL, 0x101))).is_none());
    assert!(notifier_of(setup.send(&vring(FrontendReq::SET_VRING_ERR, 0x101))).is_none());
}

#[test]
fn calls_and_errors_ring_doorbells_whatever_came_first() {
    let mut setup = Setup::ours();
    let call = notifier_of(setup.send(&vring(FrontendReq::SET_VRING_CALL, 1))).unwrap();
    kick_of(setup.send(&vring(FrontendReq::SET_VRING_KICK, 1))).unwrap();
    let late = notifier_of(setup.send(&vring(FrontendReq::SET_VRING_CALL, 1))).unwrap();
    let error = notifier_of(setup.send(&vring(FrontendReq::SET_VRING_ERR, 3))).unwrap();
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
    assert!(notifier_of(setup.send(&vring(FrontendReq::SET_VRING_ERR, 1))).is_none());
}

#[test]
fn vrings_that_are_not_there_are_the_frontends_mistake() {
    let mut setup = Setup::ours();
    for request in [
        FrontendReq::SET_VRING_KICK,
        FrontendReq::SET_VRING_CALL,
        FrontendReq::SET_VRING_ERR,
    ] {
        let error = setup.send(&vring(request, 4)).resource.unwrap_err();
        assert_eq!(error.to_string(), "there is no vring 4");
        let short = Message::request(request, &[0; 7]);
        assert!(setup.send(&short).resource.is_err());
    }
}

#[test]
fn a_second_memory_table_is_mapped_like_the_first() {
    let mut setup = Setup::ours();
    for offset in [0, 0x1000, 0] {
        let Ok(Resource::Memory(regions)) = setup.send(&mem_table(offset)).resource else {
            panic!("no memory");
        };
        assert_eq!(regions[0].region.len(), 0x10_0000);
        let place = regions[0].region.file_offset().unwrap().start();
        assert_eq!(place, offset, "our dialect leaves a gap before the region");
    }
    let too_far = setup.send(&mem_table(1 << 40)).resource.unwrap_err();
    assert!(too_far.to_string().contains("give the device a larger one"));
}

#[test]
fn the_caller_can_be_woken_and_the_frontend_be_sent_away() {
    let mut setup = Setup::ours();
    setup.assert_idle();
    setup.send(&get_features());
    setup.transport.disconnect().unwrap();
    assert!(!setup.mock.state().peer);
    setup.assert_idle();
    setup.assert_serves_the_next();
}

#[test]
fn protocol_features_that_need_descriptors_do_not_cross() {
    let setup = Setup::ours();
    let everything = setup.transport.protocol_features(u64::MAX);
    assert_eq!(everything & 0x209, 0x209, "MQ, REPLY_ACK, CONFIG");
    assert_eq!(everything & (1 << 1 | 1 << 12 | 1 << 15), 0);
    assert_eq!(setup.transport.protocol_features(0x1008), 8);
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
