//! Tests of front-ends whose memory is truncated while a queue serves.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::thread;

use super::*;
use crate::{FrontEnd, SocketTransport, VringSetup};
use ipc::{Interest, Listener, poll};
use virtio::GuestMemory;
use virtio::memory::survive_losses;
use virtio::test_utils::{DriverRing, NullDevice};

const PATIENCE: Duration = Duration::from_secs(20);

const DEVICE: NullDevice = NullDevice {
    queues: 1,
    features: 0,
};

/// A front-end with one running queue.
struct Peer {
    front: FrontEnd,
    socket: UnixStream,
    file: Arc<File>,
    ring: DriverRing,
    kick: SharedEventFd,
    call: SharedEventFd,
    error: SharedEventFd,
}

impl Peer {
    fn new(socket: UnixStream) -> Self {
        let mut front = FrontEnd::new(socket.try_clone().unwrap(), PATIENCE).unwrap();
        let features = F_PROTOCOL_FEATURES | 1 << 32;
        front.negotiate(features, ProtocolFeatures::all()).unwrap();
        let file = anonymous_file(SIZE);
        let shared = region(0, USER).with(file.as_fd());
        let table = MemoryTable::new(vec![shared]).unwrap();
        front.request(Request::SetMemTable(table)).unwrap();
        let region = Region::map(file.clone(), 0, GuestAddress(0), SIZE, true).unwrap();
        let memory = Arc::new(GuestMemory::from_regions(vec![region]).unwrap());
        let mut peer = Self {
            ring: DriverRing::new(memory, 0x1000, 16),
            front,
            socket,
            file,
            kick: eventfd(),
            call: eventfd(),
            error: eventfd(),
        };
        peer.start();
        peer
    }

    fn start(&mut self) {
        let layout = self.ring.layout();
        let (index, error) = (0, Some(self.error.as_fd()));
        let request = Request::SetVringErr(VringFd { index, fd: error });
        self.front.request(request).unwrap();
        let vring = VringSetup {
            size: 16,
            base: 0,
            addr: VringAddr {
                index: 0,
                desc: USER + layout.desc.0,
                avail: USER + layout.avail.0,
                used: USER + layout.used.0,
                ..VringAddr::default()
            },
            kick: Some(self.kick.as_fd()),
            call: Some(self.call.as_fd()),
        };
        self.front.start_vring(&vring).unwrap();
    }

    fn be_served(&mut self) {
        self.ring.add(&[(0x8000, 1, true)]);
        self.kick.signal().unwrap();
        // The start of the vring may have called, too.
        let deadline = Instant::now() + PATIENCE;
        while self.ring.pop_used().is_none() {
            assert!(Instant::now() < deadline, "no answer");
            wait(&self.call);
            self.call.take().unwrap();
        }
    }
}

fn wait(fd: impl AsFd) {
    let [ready] = poll([Interest::Readable(fd.as_fd())], Some(PATIENCE)).unwrap();
    assert!(ready, "deadline");
}

/// Serves front-ends at a socket, until the test is over.
struct Host {
    folder: tempfile::TempDir,
    stop: Arc<SharedEventFd>,
    thread: Option<thread::JoinHandle<Result<(), TransportError>>>,
}

impl Host {
    fn start() -> Self {
        survive_losses().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let listener = Listener::bind(&folder.path().join("socket")).unwrap();
        let stop = Arc::new(eventfd());
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut transport = SocketTransport::listening(listener);
            let mut runner = Runner::new(Arc::new(DEVICE), RINGS);
            serve(&mut transport, &mut runner, stopped.as_fd())
        });
        Self {
            folder,
            stop,
            thread: Some(thread),
        }
    }

    fn connect(&self) -> Peer {
        Peer::new(UnixStream::connect(self.folder.path().join("socket")).unwrap())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.signal().unwrap();
        let served = self.thread.take().unwrap().join();
        assert!(thread::panicking() || matches!(served, Ok(Ok(()))));
    }
}

#[test]
fn a_front_end_that_truncates_its_memory_is_dropped_and_the_next_one_is_served() {
    let host = Host::start();
    for _ in 0..3 {
        let mut peer = host.connect();
        peer.be_served();
        peer.file.set_len(0).unwrap();
        peer.kick.signal().unwrap();
        wait(&peer.error);
        // The front-end is dropped although it sends nothing.
        wait(&peer.socket);
        assert!(peer.front.get_features().is_err());
    }
    host.connect().be_served();
}

#[test]
fn a_front_end_whose_ring_is_gone_when_it_starts_is_dropped() {
    let host = Host::start();
    let mut peer = host.connect();
    assert_eq!(peer.front.get_vring_base(0).unwrap(), 0);
    peer.file.set_len(0).unwrap();
    let (index, fd) = (0, Some(peer.kick.as_fd()));
    let kick = Request::SetVringKick(VringFd { index, fd });
    // The session may drop the front-end before it sends the acknowledgement.
    let _ = peer.front.request(kick);
    wait(&peer.socket);
    assert!(peer.front.get_features().is_err());
    host.connect().be_served();
}
