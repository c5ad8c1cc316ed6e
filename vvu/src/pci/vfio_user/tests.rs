//! Tests of the vfio-user client with a server that serves the mock device.

use std::os::fd::AsFd;

use ipc::SharedEventFd;
use std::os::unix::net::UnixListener;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use vfio_user::server::{Connection, IrqData, Request, ServerError};
use vfio_user::{Area, DeviceInfo, IrqInfo, RegionFlags};
use vhost_user::{
    Absent, Event, MemoryRegion, MemoryTable, Reply, Request as Asked, Transport, VringFd,
    WithCauses,
};

use super::*;
use crate::VvuTransport;
use crate::pci::mock::{MockFunction, Profile};

/// Serves the mock device to one vfio-user client.
struct Server {
    mock: Arc<MockFunction>,
    eventfds: Vec<IoEventFd>,
    connection: Connection,
}

type Served = Result<(), ServerError>;

impl Server {
    /// Serves until the client leaves.
    fn run(mut self) {
        loop {
            match self.connection.next() {
                Ok(Some(request)) => self.answer(request).unwrap(),
                Ok(None) => self.wait(),
                Err(error) => return assert!(error.is_closed(), "{error}"),
            }
        }
    }

    fn wait(&self) {
        let mut fds = [PollFd::new(&self.connection, PollFlags::IN)];
        poll(&mut fds, None).unwrap();
    }

    fn answer(&mut self, request: Request) -> Served {
        match request {
            Request::DeviceInfo => self.connection.reply_device(&DeviceInfo {
                flags: DeviceFlags::PCI,
                regions: index::REGIONS,
                irqs: index::IRQS,
            }),
            Request::RegionInfo(region) => self.connection.reply_region(&self.region(region)),
            Request::RegionIoFds(2) => self.connection.reply_io_fds(&self.eventfds),
            Request::RegionIoFds(_) => self.connection.reply_error(rustix::io::Errno::INVAL),
            Request::IrqInfo(_) => self.connection.reply_irq(&IrqInfo {
                count: self.mock.vector_count().into(),
                ..IrqInfo::default()
            }),
            Request::RegionRead {
                region,
                offset,
                len,
            } => {
                let mut data = vec![0; len];
                match region {
                    index::CONFIG => self.mock.read_config(offset, &mut data).unwrap(),
                    bar => self.mock.read_bar(bar as u8, offset, &mut data).unwrap(),
                }
                self.connection.reply_data(&data)
            }
            other => {
                self.act(other);
                self.connection.reply_done()
            }
        }
    }

    fn act(&self, request: Request) {
        match request {
            Request::RegionWrite(write) => match write.region {
                index::CONFIG => self.mock.write_config(write.offset, &write.data),
                bar => self.mock.write_bar(bar as u8, write.offset, &write.data),
            },
            Request::DmaMap(map) => {
                let file = Arc::new(map.fd.unwrap().into());
                let memory = DmaMemory::from_file(file, map.size).unwrap();
                self.mock.map_dma(map.address, &memory).unwrap();
                Ok(())
            }
            Request::DmaUnmap(_) => self.mock.unmap_dma(0),
            Request::SetIrqs(irqs) => self.set_irqs(irqs.data),
            other => panic!("{other:?}"),
        }
        .unwrap();
    }

    fn set_irqs(&self, data: IrqData) -> io::Result<()> {
        let IrqData::EventFds(fds) = data else {
            return self.mock.set_vectors(&[]);
        };
        let eventfds: Vec<_> = fds.iter().flatten().map(AsFd::as_fd).collect();
        self.mock.set_vectors(&eventfds)
    }

    fn region(&self, region: u32) -> RegionInfo {
        let size = match region {
            index::CONFIG => 256,
            bar => self.mock.bar_size(bar as u8),
        };
        let flags = RegionFlags::READ | RegionFlags::WRITE;
        let info = RegionInfo {
            flags,
            size,
            ..RegionInfo::default()
        };
        let Some(part) = self
            .mock
            .bar_file(region as u8, 0, size)
            .filter(|_| size > 0)
        else {
            return info;
        };
        RegionInfo {
            flags: flags | RegionFlags::MMAP,
            areas: vec![Area { offset: 0, size }],
            file: Some(part.file),
            ..info
        }
    }
}

/// The mock device behind a server, and a client of that server.
struct Setup {
    mock: Arc<MockFunction>,
    function: Arc<VfioUserFunction>,
    server: JoinHandle<()>,
}

fn serve(profile: Profile, eventfds: Vec<IoEventFd>) -> Setup {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vvu.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mock = MockFunction::new(profile);
    let served = mock.clone();
    let server = std::thread::spawn(move || {
        let server = Server {
            mock: served,
            eventfds,
            connection: Connection::new(listener.accept().unwrap().0).unwrap(),
        };
        server.run();
    });
    let function = Arc::new(VfioUserFunction::connect(&path, MemoryFiles::default()).unwrap());
    Setup {
        mock,
        function,
        server,
    }
}

fn doorbell_eventfd(
    offset: u64,
    size: u64,
    datamatch: Option<u64>,
) -> (Arc<SharedEventFd>, IoEventFd) {
    let eventfd = Arc::new(SharedEventFd::new().unwrap());
    let entry = IoEventFd {
        offset,
        size,
        eventfd: eventfd.clone(),
        datamatch,
    };
    (eventfd, entry)
}

#[test]
fn a_function_behind_a_server_has_the_sizes_and_files_of_the_device() {
    let Setup {
        mock,
        function,
        server,
    } = serve(Profile::ours(), vec![]);
    assert_eq!(function.vector_count(), 19);
    assert!(!function.reset().unwrap(), "it has no reset");
    for bar in 0..8 {
        assert_eq!(function.bar_size(bar), mock.bar_size(bar));
    }
    let mut ids = [0; 4];
    function.read_config(0, &mut ids).unwrap();
    assert_eq!(ids, [0xf4, 0x1a, 0x7d, 0x10]);
    assert!(function.bar_file(0, 0, 0x1000).is_none());
    let window = function.bar_file(4, 0x1000, 0x2000).unwrap();
    assert_eq!((window.offset, window.direct_io), (0x1000, true));
    assert!(function.bar_file(4, (1 << 33) - 0xfff, 0x1000).is_none());
    assert!(function.bar_file(4, u64::MAX, 2).is_none());
    drop(function);
    server.join().unwrap();
}

#[test]
fn a_front_end_is_served_through_a_server() {
    let (rung, entry) = doorbell_eventfd(4, 2, None);
    let Setup {
        mock,
        function,
        server,
    } = serve(Profile::ours(), vec![entry]);
    let mut transport = VvuTransport::new(function, 2, None).unwrap();
    mock.state().connect();
    let wake = SharedEventFd::new().unwrap();
    let mut ask = |asked: Asked<Absent>| {
        let (message, _) = asked.encode();
        mock.state().deliver(&message.encode());
        match transport.next([wake.as_fd(); 2]).unwrap() {
            Event::Request(incoming) => {
                transport.reply(incoming.head, Reply::number(1)).unwrap();
                incoming.request.unwrap()
            }
            other => panic!("{other:?}"),
        }
    };
    ask(Asked::GetFeatures);
    let region = MemoryRegion {
        guest_addr: 0,
        size: 0x10_0000,
        user_addr: 0,
        file_offset: 0x1000,
        memory: Absent,
    };
    let table = MemoryTable::new(vec![region]).unwrap();
    let Asked::SetMemTable(memory) = ask(Asked::SetMemTable(table)) else {
        panic!("no memory");
    };
    assert!(memory.regions()[0].memory.direct_io(), "the BAR is a file");
    for index in [0, 1] {
        let fd = Some(Absent);
        let Asked::SetVringCall(doorbell) = ask(Asked::SetVringCall(VringFd { index, fd })) else {
            panic!("no doorbell");
        };
        doorbell.fd.unwrap().notify().unwrap();
    }
    assert!(rung.take().unwrap(), "queue 1 has an eventfd");
    assert_eq!(mock.state().rung, [(0, vec![0, 0])], "queue 0 has none");
    assert_eq!(mock.state().sent.len(), 4);
    mock.state().leave();
    let event = transport.next([wake.as_fd(); 2]).unwrap();
    assert!(matches!(event, Event::Left));
    drop(transport);
    server.join().unwrap();
    assert!(mock.state().vectors.is_empty() && mock.state().dma.is_none());
}

#[test]
fn eventfds_that_stand_for_other_writes_are_not_taken() {
    let entries = [(8, 4, None), (12, 2, Some(3)), (16, 0, None)]
        .map(|(offset, size, datamatch)| doorbell_eventfd(offset, size, datamatch).1);
    let Setup {
        function, server, ..
    } = serve(Profile::ours(), entries.to_vec());
    assert!(function.register_eventfd(2, 8).is_none(), "too wide");
    assert!(function.register_eventfd(2, 12).is_none(), "one value only");
    assert!(function.register_eventfd(2, 16).is_some());
    assert!(function.register_eventfd(0, 16).is_none(), "another BAR");
    drop(function);
    server.join().unwrap();
}

#[test]
fn a_server_that_leaves_takes_the_function_along() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    drop(theirs);
    assert!(Client::from_stream(ours, TIMEOUT).is_err());
    let Setup {
        function, server, ..
    } = serve(Profile::ours(), vec![]);
    let hangup = function.hangup().unwrap();
    let is_readable = || {
        let mut fds = [PollFd::new(&hangup, PollFlags::IN)];
        poll(&mut fds, Some(&Default::default())).unwrap() == 1
    };
    assert!(!is_readable());
    // BAR 5 of the mock has no registers, so this read makes the server panic.
    assert!(function.read_bar(5, 0, &mut [0; 4]).is_err());
    assert!(is_readable());
    assert!(server.join().is_err());
}

#[test]
fn the_error_for_a_missing_server_names_its_socket() {
    let directory = tempfile::tempdir().unwrap();
    let error =
        VfioUserFunction::connect(&directory.path().join("vvu.sock"), MemoryFiles::default())
            .unwrap_err();
    let text = WithCauses(&error).to_string();
    assert!(text.contains("no vfio-user server at"), "{text}");
    assert!(text.contains("vvu.sock: No such file"), "{text}");
    assert!(!text.contains('\n'), "{text}");
}

/// After the driver has opened the doorbell's eventfd, the server fills the eventfd's counter and
/// clears O_NONBLOCK.
#[test]
fn a_doorbell_that_the_server_makes_block_is_an_error_after_milliseconds() {
    let (theirs, entry) = doorbell_eventfd(8, 2, None);
    let Setup {
        function, server, ..
    } = serve(Profile::ours(), vec![entry]);
    let doorbell = function.register_eventfd(2, 8).unwrap();
    rustix::io::ioctl_fionbio(&*theirs, false).unwrap();
    rustix::io::write(&*theirs, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    let (done, result) = channel();
    std::thread::spawn(move || done.send(doorbell.signal().unwrap_err().kind()));
    let rung = result.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(rung, io::ErrorKind::TimedOut);
    drop(function);
    server.join().unwrap();
}

#[test]
fn a_bar_on_a_file_system_that_may_not_answer_is_refused() {
    let bar = |path: &str| Bar {
        region: RegionInfo {
            file: Some(Arc::new(std::fs::File::open(path).unwrap())),
            ..RegionInfo::default()
        },
        eventfds: Vec::new(),
    };
    let other = bar("/proc/self/maps");
    assert!(other.check_file(MemoryFiles::default()).is_err());
    other.check_file(MemoryFiles::any()).unwrap();
    let shared = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    let path = shared.path().to_str().unwrap();
    bar(path).check_file(MemoryFiles::default()).unwrap();
}
