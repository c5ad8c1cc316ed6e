//! A transport with a scripted front-end.

use super::*;

/// The objects that replace the descriptors of a scripted request.
#[derive(Clone, Default)]
pub(super) struct Stand {
    pub(super) kick: Option<Arc<SharedEventFd>>,
    pub(super) notifier: Option<Arc<dyn Notifier>>,
}

impl Attach for Stand {
    type Descriptor = Absent;
    type Into = Attached;

    fn memory(
        &mut self,
        table: MemoryTable<Absent>,
    ) -> Result<MemoryTable<Arc<Region>>, AttachError> {
        table.try_map(|region| {
            let (file, start) = (anonymous_file(SIZE), GuestAddress(region.guest_addr));
            let mapped = Region::map(file, 0, start, region.size, true)?;
            Ok(region.with(Arc::new(mapped)))
        })
    }

    fn kick(&mut self, index: u8, _: Absent) -> Result<Arc<SharedEventFd>, AttachError> {
        self.kick.clone().ok_or(AttachError::NoSuchVring(index))
    }

    fn notifier(
        &mut self,
        _: u8,
        _: Signal,
        _: Absent,
    ) -> Result<Option<Arc<dyn Notifier>>, AttachError> {
        Ok(self.notifier.clone())
    }

    fn file(&mut self, _: Absent) -> Result<OwnedFd, AttachError> {
        Ok(anonymous_file(SIZE).try_clone().unwrap().into())
    }
}

/// A transport whose front-end sends a fixed list of requests.
#[derive(Default)]
pub(super) struct Script {
    pub(super) events: VecDeque<Event>,
    pub(super) replies: Vec<Message>,
    pub(super) dropped: usize,
}

impl Transport for Script {
    fn next(&mut self, _wakes: [BorrowedFd<'_>; 2]) -> Result<Event, TransportError> {
        Ok(self.events.pop_front().unwrap_or(Event::Closed))
    }

    fn reply(&mut self, to: Head, reply: Reply) -> Result<(), TransportError> {
        self.replies.push(to.reply(&reply.payload));
        Ok(())
    }

    fn disconnect(&mut self) -> Result<(), TransportError> {
        self.dropped += 1;
        Ok(())
    }

    fn protocol_features(&self, offered: ProtocolFeatures) -> ProtocolFeatures {
        offered
    }
}

pub(super) fn region(start: u64, user_addr: u64) -> MemoryRegion<Absent> {
    MemoryRegion {
        guest_addr: start,
        size: SIZE,
        user_addr,
        file_offset: 0,
        memory: Absent,
    }
}

pub(super) fn table(start: u64, user_addr: u64) -> MemoryTable<Absent> {
    MemoryTable::new(vec![region(start, user_addr)]).unwrap()
}

pub(super) fn state(index: u32, num: u32) -> VringState {
    VringState { index, num }
}

impl Script {
    /// A script that negotiates all protocol features of the session and shares 64 KiB at guest
    /// address 0x10000.
    pub(super) fn negotiated() -> Self {
        Self::default()
            .ask(Request::SetOwner)
            .ask(Request::SetFeatures(EVENT_IDX | F_PROTOCOL_FEATURES))
            .ask(Request::SetProtocolFeatures(PROTOCOL_FEATURES))
            .ask(Request::SetMemTable(table(0x1_0000, USER)))
    }

    /// Adds any message, with the number of descriptors that the message needs.
    pub(super) fn message(mut self, message: &Message, mut stand: Stand) -> Self {
        let brings = message.head.kind().map(|kind| kind.brings);
        let count = brings.map_or(0, |brings| brings.count(&message.payload).0);
        self.events.push_back(Event::Request(Incoming {
            head: message.head,
            request: Request::attach(message, vec![Absent; count], &mut stand),
        }));
        self
    }

    pub(super) fn ask(self, request: Request<Absent>) -> Self {
        self.message(&request.encode().0, Stand::default())
    }

    /// Adds a request with the flag that asks for an acknowledgement.
    pub(super) fn ask_ack(self, request: Request<Absent>) -> Self {
        self.message(&request.encode().0.needing_reply(), Stand::default())
    }

    pub(super) fn addr(self, index: u32, user: u64) -> Self {
        self.ask(Request::SetVringAddr(VringAddr {
            index,
            desc: user,
            avail: user + 0x1000,
            used: user + 0x2000,
            ..Default::default()
        }))
    }

    pub(super) fn kick(self, index: u8, eventfd: Option<SharedEventFd>) -> Self {
        let fd = eventfd.as_ref().map(|_| Absent);
        let stand = Stand {
            kick: eventfd.map(Arc::new),
            ..Stand::default()
        };
        let (message, _) = Request::<Absent>::SetVringKick(VringFd { index, fd }).encode();
        self.message(&message, stand)
    }

    pub(super) fn call(self, index: u8, notifier: Option<Arc<dyn Notifier>>) -> Self {
        let fd = notifier.as_ref().map(|_| Absent);
        let (message, _) = Request::<Absent>::SetVringCall(VringFd { index, fd }).encode();
        let kick = None;
        self.message(&message, Stand { kick, notifier })
    }

    /// Adds all requests that a vring needs to start, except SET_VRING_KICK.
    pub(super) fn vring(self, queue: u32) -> Self {
        self.ask(Request::SetVringNum(state(queue, 128)))
            .ask(Request::SetVringBase(state(queue, 7)))
            .addr(queue, USER)
            .ask(Request::SetVringEnable(state(queue, 1)))
    }

    pub(super) fn event(mut self, event: Event) -> Self {
        self.events.push_back(event);
        self
    }

    /// Serves a new device to the scripted front-end. At the end of the script, all vrings are
    /// stopped.
    pub(super) fn play(mut self) -> (Self, Recorder) {
        let device = Recorder::default();
        let never = eventfd();
        let mut runner = Runner::new(Arc::new(device.clone()), RINGS);
        serve(&mut self, &mut runner, never.as_fd()).unwrap();
        assert!(self.events.is_empty());
        (self, device)
    }

    pub(super) fn last_payload(&self) -> &[u8] {
        &self.replies.last().unwrap().payload
    }

    pub(super) fn numbers(&self) -> Vec<u64> {
        let numbers = self.replies.iter().map(|reply| reply.as_number().unwrap());
        numbers.collect()
    }
}

pub(super) fn eventfd() -> SharedEventFd {
    SharedEventFd::new().unwrap()
}
