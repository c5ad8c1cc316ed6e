use super::*;
use crate::ChannelError;
use crate::types::{Area, DeviceFlags, RegionFlags, index};
use crate::wire::{Header, Kind};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc::channel;
use std::thread;

use ipc::StreamError;
use vfio_bindings::bindings::vfio::{vfio_region_info, vfio_region_sparse_mmap_area};
use vfio_user_peer as peer;

const TIMEOUT: Duration = Duration::from_secs(20);

fn memory_file(len: u64) -> File {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let file = File::from(rustix::fs::memfd_create("test", flags).unwrap());
    file.set_len(len).unwrap();
    file
}

fn eventfd() -> OwnedFd {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap()
}

/// The commands that the independent server (from the crates.io package `vfio_user`) received.
#[derive(Default)]
struct Log {
    calls: Vec<String>,
    irqs: usize,
}

impl peer::ServerBackend for Log {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.calls.push(format!("read {region} {offset:#x}"));
        data.fill(0x5a);
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        self.calls
            .push(format!("write {region} {offset:#x} {data:?}"));
        match offset {
            0x666 => Err(io::ErrorKind::InvalidInput.into()),
            _ => Ok(()),
        }
    }

    fn dma_map(
        &mut self,
        flags: peer::DmaMapFlags,
        offset: u64,
        address: u64,
        size: u64,
        fd: Option<File>,
    ) -> io::Result<()> {
        let flags = flags.bits();
        self.calls.push(format!(
            "map {flags} {offset:#x} {address:#x} {size:#x} {}",
            fd.is_some()
        ));
        Ok(())
    }

    fn dma_unmap(&mut self, _: peer::DmaUnmapFlags, address: u64, size: u64) -> io::Result<()> {
        self.calls.push(format!("unmap {address:#x} {size:#x}"));
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        self.calls.push("reset".to_owned());
        Ok(())
    }

    fn set_irqs(
        &mut self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        fds: Vec<File>,
    ) -> io::Result<()> {
        self.calls
            .push(format!("irqs {index} {flags:#x} {start}+{count}"));
        self.irqs += fds.len();
        Ok(())
    }
}

/// The regions of the device that the independent server (from the crates.io package `vfio_user`)
/// emulates. A part of BAR 4 can be mapped. BAR 0 cannot be mapped.
fn foreign_regions(file: &File) -> Vec<peer::ServerRegion> {
    let region = |index: u32, size| peer::ServerRegion {
        region_info: vfio_region_info {
            argsz: 32,
            flags: 3,
            index,
            size,
            ..Default::default()
        },
        sparse_areas: Vec::new(),
        mmap_fd: None,
    };
    let mut regions: Vec<_> = (0..index::REGIONS)
        .map(|index| region(index, 0x1000))
        .collect();
    regions[4].region_info.flags = 7;
    regions[4].region_info.size = 0x4000;
    regions[4].mmap_fd = Some(file.as_raw_fd());
    let area = vfio_region_sparse_mmap_area {
        offset: 0x1000,
        size: 0x2000,
    };
    regions[4].sparse_areas.push(peer::SparseArea { area });
    regions
}

#[test]
fn a_foreign_server_understands_each_command() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server");
    let file = memory_file(0x3000);
    let irqs = (0..index::IRQS).map(|index| peer::IrqInfo {
        index,
        flags: 1,
        count: 4,
    });
    let server = peer::Server::new(&path, true, irqs.collect(), foreign_regions(&file)).unwrap();
    let server = thread::spawn(move || {
        let mut log = Log::default();
        server.run(&mut log).unwrap();
        log
    });

    let mut client = Client::connect(&path, TIMEOUT).unwrap();
    let info = client.device_info().unwrap();
    assert_eq!((info.regions, info.irqs), (9, 5));
    assert_eq!(info.flags, DeviceFlags::PCI | DeviceFlags::RESET);
    let region = client.region_info(4).unwrap();
    let area = Area {
        offset: 0x1000,
        size: 0x2000,
    };
    assert_eq!((region.size, region.areas), (0x4000, vec![area]));
    assert_eq!(region.file.unwrap().metadata().unwrap().len(), 0x3000);
    let region = client.region_info(0).unwrap();
    assert_eq!(region.flags, RegionFlags::READ | RegionFlags::WRITE);
    assert_eq!(client.irq_info(index::MSIX).unwrap().count, 4);

    let mut data = [0; 3];
    client.region_read(0, 0x10, &mut data).unwrap();
    assert_eq!(data, [0x5a; 3]);
    client.region_write(0, 0x20, &[1, 2]).unwrap();
    let error = client.region_write(0, 0x666, &[1]).unwrap_err();
    assert!(matches!(error, ClientError::Refused { .. }), "{error}");
    client
        .dma_map(0x10000, 0x3000, file.as_fd(), 0x1000, DmaFlags::READ)
        .unwrap();
    client.dma_unmap(0x10000, 0x3000).unwrap();
    let (one, two) = (eventfd(), eventfd());
    let fds = [Some(one.as_fd()), Some(two.as_fd()), None];
    client.set_irqs(index::MSIX, 1, &fds).unwrap();
    client.disable_irqs(index::MSIX).unwrap();
    client.reset().unwrap();
    drop(client);

    let log = server.join().unwrap();
    let expected = [
        "read 0 0x10",
        "write 0 0x20 [1, 2]",
        "write 0 0x666 [1]",
        "map 1 0x1000 0x10000 0x3000 true",
        "unmap 0x10000 0x3000",
        "irqs 2 0x24 1+1",
        "irqs 2 0x24 2+1",
        "irqs 2 0x24 3+1",
        "irqs 2 0x21 0+0",
        "reset",
    ];
    assert_eq!(log.calls, expected);
    assert_eq!(log.irqs, 2);
}

/// A client, and the socket of its server. The server answers the version negotiation, and then
/// sends `reply` as the answer to the client's next command.
fn lying_server(reply: &[u8]) -> (Client, UnixStream) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let version = Version::ours().encode().0;
    let header = Header {
        id: 0,
        command: Command::Version as u16,
        kind: Kind::Reply { errno: None },
    };
    theirs.write_all(&header.encode(version.len())).unwrap();
    theirs.write_all(&version).unwrap();
    theirs.write_all(reply).unwrap();
    (Client::from_stream(ours, TIMEOUT).unwrap(), theirs)
}

fn reply(id: u16, command: Command, errno: Option<u32>, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        id,
        command: command as u16,
        kind: Kind::Reply { errno },
    };
    [&header.encode(payload.len()), payload].concat()
}

#[test]
fn replies_that_do_not_answer_the_command_are_errors() {
    let info = Command::DeviceGetInfo;
    let cases: [(&str, Vec<u8>); 6] = [
        ("another id", reply(7, info, None, &[0; 16])),
        ("another command", reply(1, Command::DmaMap, None, &[0; 16])),
        ("too short", reply(1, info, None, &[0; 15])),
        (
            "size too small",
            vec![1, 0, 4, 0, 15, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        ),
        (
            "size too large",
            vec![1, 0, 4, 0, 0, 0, 0, 0xff, 1, 0, 0, 0, 0, 0, 0, 0],
        ),
        (
            "wrong type",
            vec![1, 0, 4, 0, 16, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0],
        ),
    ];
    for (what, bytes) in cases {
        let (mut client, _server) = lying_server(&bytes);
        assert!(client.device_info().is_err(), "{what}");
    }
}

#[test]
fn a_refusal_has_the_errno_that_the_server_sent_or_eio() {
    for (sent, seen) in [(22, 22), (0, 5), (u32::MAX, 5)] {
        let (mut client, _server) = lying_server(&reply(1, Command::DeviceReset, Some(sent), &[]));
        match client.reset() {
            Err(ClientError::Refused { source, .. }) => {
                assert_eq!(source.raw_os_error(), Some(seen));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn commands_of_the_server_are_refused() {
    let command = Header {
        id: 99,
        command: Command::DmaRead as u16,
        kind: Kind::Command { no_reply: false },
    };
    let mut bytes = [&command.encode(16)[..], &[0; 16]].concat();
    bytes.extend(reply(1, Command::DeviceReset, None, &[]));
    let (mut client, mut server) = lying_server(&bytes);
    client.reset().unwrap();
    drop(client);
    let mut sent = Vec::new();
    server.read_to_end(&mut sent).unwrap();
    let refusal = reply(99, Command::DmaRead, Some(95), &[]);
    assert!(sent.ends_with(&refusal), "{sent:?}");
}

#[test]
fn a_silent_server_is_told_apart_from_one_that_left() {
    let (mut client, server) = lying_server(&[]);
    client.timeout = Duration::from_millis(1);
    assert!(matches!(client.reset(), Err(ClientError::TimedOut { .. })));
    drop(server);
    let (mut client, server) = lying_server(&[]);
    drop(server);
    assert!(matches!(
        client.reset(),
        Err(ClientError::Channel(ChannelError::Stream(
            StreamError::Closed
        )))
    ));
}

#[test]
fn other_messages_do_not_give_the_server_more_time() {
    let (mut client, mut server) = lying_server(&[]);
    client.timeout = Duration::from_millis(50);
    let other = Header {
        id: 99,
        command: Command::DmaRead as u16,
        kind: Kind::Command { no_reply: true },
    };
    let flood = other.encode(0).repeat(100);
    // When the client is dropped, the write fails and the thread ends.
    let server = thread::spawn(move || while server.write_all(&flood).is_ok() {});
    let (done, result) = channel();
    thread::spawn(move || done.send(client.reset().unwrap_err()).unwrap());
    let error = result.recv_timeout(TIMEOUT).unwrap();
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
    server.join().unwrap();
}

#[test]
fn no_command_waits_for_a_server_that_missed_a_deadline() {
    let (mut client, _server) = lying_server(&[]);
    client.timeout = Duration::from_millis(50);
    let first = client.reset().unwrap_err();
    assert!(matches!(first, ClientError::TimedOut { .. }), "{first}");
    client.timeout = TIMEOUT;
    let second = client.reset().unwrap_err();
    assert!(matches!(second, ClientError::Ended), "{second}");
}

#[test]
fn the_error_names_the_path_where_nobody_listens() {
    let error = Client::connect(Path::new("/nonexistent/socket"), TIMEOUT).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("/nonexistent/socket: cannot connect")
    );
}
