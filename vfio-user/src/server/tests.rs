use super::*;
use crate::client::{Client, ClientError};
use crate::types::{Area, DeviceFlags, DmaFlags, IrqFlags, RegionFlags, index};
use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;
use std::{mem, thread};

mod forms;
mod refusals;

const TIMEOUT: Duration = Duration::from_secs(20);

fn wait(connection: &Connection) {
    let flags = match connection.wants_write() {
        true => PollFlags::OUT,
        false => PollFlags::IN,
    };
    let limit = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::from_borrowed_fd(connection.as_fd(), flags)];
    assert_ne!(poll(&mut fds, Some(&limit)).unwrap(), 0, "deadline");
}

/// Runs a client against a server that answers with `handle`, until the client is gone.
fn serve<T: Send + 'static>(
    use_client: impl FnOnce(Client) -> T + Send + 'static,
    mut handle: impl FnMut(&mut Connection, Request),
) -> T {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let user = thread::spawn(move || use_client(Client::from_stream(theirs, TIMEOUT).unwrap()));
    let mut connection = Connection::new(ours).unwrap();
    loop {
        match connection.next() {
            Ok(Some(request)) => handle(&mut connection, request),
            Ok(None) => wait(&connection),
            Err(error) if error.is_closed() => return user.join().unwrap(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_region_comes_with_its_areas_and_its_file() {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let file = File::from(rustix::fs::memfd_create("bar", flags).unwrap());
    file.set_len(0x3000).unwrap();
    let info = RegionInfo {
        flags: RegionFlags::READ | RegionFlags::WRITE,
        size: 0x4000,
        offset: 0,
        areas: vec![Area {
            offset: 0,
            size: 0x3000,
        }],
        file: Some(Arc::new(file)),
    };
    let mut asked = 0;
    let seen = serve(
        |mut client| client.region_info(4).unwrap(),
        |connection, request| {
            assert!(matches!(request, Request::RegionInfo(4)), "{request:?}");
            asked += 1;
            connection.reply_region(&info).unwrap();
        },
    );
    assert_eq!(asked, 2, "once more with room for the areas");
    assert_eq!((seen.size, &seen.areas), (0x4000, &info.areas));
    assert_eq!(seen.file.unwrap().metadata().unwrap().len(), 0x3000);
    assert!(seen.flags.contains(RegionFlags::MMAP));
}

#[test]
fn each_request_gets_its_reply() {
    let device = DeviceInfo {
        flags: DeviceFlags::PCI,
        regions: index::REGIONS,
        irqs: index::IRQS,
    };
    let irq = IrqInfo {
        flags: IrqFlags::EVENTFD,
        count: 19,
    };
    let mut calls = Vec::new();
    serve(
        move |mut client| {
            assert_eq!(client.device_info().unwrap(), device);
            assert_eq!(client.irq_info(2).unwrap(), irq);
            client.region_write(1, 8, &[1, 2, 3]).unwrap();
            let mut data = [0; 5];
            client.region_read(1, 16, &mut data).unwrap();
            assert_eq!(data, [9; 5]);
            let Err(ClientError::Refused { source, .. }) = client.reset() else {
                panic!("a busy device is not reset");
            };
            assert_eq!(source.kind(), io::ErrorKind::ResourceBusy);
            client.dma_unmap(0x1000, 0x2000).unwrap();
        },
        |connection, request| {
            let done = match &request {
                Request::DeviceInfo => connection.reply_device(&device),
                Request::IrqInfo(2) => connection.reply_irq(&irq),
                Request::RegionRead { len, .. } => connection.reply_data(&vec![9; *len]),
                Request::Reset => connection.reply_error(Errno::BUSY),
                _ => connection.reply_done(),
            };
            done.unwrap();
            calls.push(format!("{request:?}"));
        },
    );
    assert_eq!(
        calls[2],
        "RegionWrite(RegionWrite { region: 1, offset: 8, data: [1, 2, 3] })"
    );
    assert_eq!(calls[5], "DmaUnmap(Range { address: 4096, size: 8192 })");
}

#[test]
fn a_long_reply_waits_until_the_client_reads() {
    let len = crate::wire::MAX_DATA;
    let data = serve(
        move |mut client| {
            let mut data = vec![0; len];
            client.region_read(0, 0, &mut data).unwrap();
            let too_long = client.region_read(0, 0, &mut vec![0; len + 1]);
            assert!(too_long.is_err());
            data
        },
        move |connection, _| {
            connection.reply_data(&vec![7; len]).unwrap();
            assert!(connection.wants_write(), "a socket takes less at once");
        },
    );
    assert!(data.iter().all(|byte| *byte == 7));
}

#[test]
fn eventfds_are_sent_in_messages_that_the_server_takes() {
    let mut seen = Vec::new();
    serve(
        |mut client| {
            let flags = rustix::event::EventfdFlags::CLOEXEC;
            let fds: Vec<_> = (0..20)
                .map(|_| rustix::event::eventfd(0, flags).unwrap())
                .collect();
            let mut set: Vec<_> = fds.iter().map(|fd| Some(fd.as_fd())).collect();
            set[18] = None;
            client.set_irqs(index::MSIX, 1, &set).unwrap();
            client.disable_irqs(index::MSIX).unwrap();
        },
        |connection, request| {
            let Request::SetIrqs(set) = request else {
                panic!("{request:?}");
            };
            assert_eq!((set.index, set.action), (index::MSIX, IrqAction::Trigger));
            let fds = match set.data {
                IrqData::EventFds(fds) => fds.iter().filter(|fd| fd.is_some()).count(),
                _ => 0,
            };
            seen.push((set.start, set.count, fds));
            connection.reply_done().unwrap();
        },
    );
    assert_eq!(
        seen,
        [(1, 16, 16), (17, 2, 2), (19, 1, 0), (20, 1, 1), (0, 0, 0)]
    );
}

#[test]
fn a_foreign_client_gets_each_reply() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let user = thread::spawn(move || {
        let mut client = vfio_user_peer::Client::new(&path).unwrap();
        let region = client.region(4).unwrap();
        assert_eq!((region.size, region.sparse_areas.len()), (0x4000, 1));
        let mut data = [0; 4];
        client.region_read(0, 4, &mut data).unwrap();
        client.region_write(0, 4, &data).unwrap();
        client.dma_unmap(0x1000, 0x1000).unwrap();
        client.set_irqs(2, 0x24, 0, 1, &[0]).unwrap();
        assert_eq!(client.get_irq_info(2).unwrap().count, 3);
        client.reset().unwrap();
    });
    let mut connection = Connection::new(listener.accept().unwrap().0).unwrap();
    let area = Area {
        offset: 0x1000,
        size: 0x1000,
    };
    let info = |index| RegionInfo {
        flags: RegionFlags::READ,
        size: 0x4000,
        areas: if index == 4 { vec![area] } else { Vec::new() },
        ..RegionInfo::default()
    };
    let device = DeviceInfo {
        flags: DeviceFlags::PCI | DeviceFlags::RESET,
        regions: 9,
        irqs: 5,
    };
    let irq = IrqInfo {
        flags: IrqFlags::EVENTFD,
        count: 3,
    };
    loop {
        match connection.next() {
            Ok(None) => wait(&connection),
            Ok(Some(Request::DeviceInfo)) => connection.reply_device(&device).unwrap(),
            Ok(Some(Request::RegionInfo(index))) => {
                connection.reply_region(&info(index)).unwrap();
            }
            Ok(Some(Request::IrqInfo(_))) => connection.reply_irq(&irq).unwrap(),
            Ok(Some(Request::RegionRead { len, .. })) => {
                connection.reply_data(&vec![1; len]).unwrap();
            }
            Ok(Some(_)) => connection.reply_done().unwrap(),
            Err(error) if error.is_closed() => break,
            Err(error) => panic!("{error}"),
        }
    }
    user.join().unwrap();
}

/// A server that has negotiated the version, and the raw socket of its client.
fn negotiated() -> (Connection, UnixStream) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut connection = Connection::new(ours).unwrap();
    theirs
        .write_all(&command(
            Command::Version as u16,
            false,
            &Version::ours().encode().0,
        ))
        .unwrap();
    assert!(connection.next().unwrap().is_none());
    let mut header = [0; 16];
    theirs.read_exact(&mut header).unwrap();
    let (_, payload) = Header::decode(&header).unwrap();
    theirs.read_exact(&mut vec![0; payload]).unwrap();
    (connection, theirs)
}

fn command(command: u16, no_reply: bool, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        id: 77,
        command,
        kind: Kind::Command { no_reply },
    };
    [&header.encode(payload.len()), payload].concat()
}

/// The errno of the reply to the client. `None` means that there is no reply, or that the reply
/// reports success.
fn refusal(client: &mut UnixStream) -> Option<u32> {
    client.set_nonblocking(true).unwrap();
    let mut header = [0; 16];
    client.read_exact(&mut header).ok()?;
    match Header::decode(&header).unwrap().0 {
        Header {
            id: 77,
            kind: Kind::Reply { errno },
            ..
        } => errno,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_command_that_wants_no_reply_gets_none() {
    let (mut connection, mut client) = negotiated();
    let write = Payload::default().u64(0).u32(0).u32(1).bytes(&[5]).0;
    client
        .write_all(&command(Command::RegionWrite as u16, true, &write))
        .unwrap();
    assert!(matches!(
        connection.next(),
        Ok(Some(Request::RegionWrite(_)))
    ));
    connection.reply_done().unwrap();
    assert_eq!(refusal(&mut client), None);
    assert!(client.read(&mut [0; 1]).is_err(), "nothing was sent");
}

#[test]
fn several_writes_come_in_one_message() {
    let (mut connection, mut client) = negotiated();
    let writes = Payload::default().u64(2).u64(8).u32(2).u32(2).u64(0x0201);
    let writes = writes.u64(12).u32(2).u32(8).u64(7).u64(0).u64(0).u64(0);
    client.write_all(&command(15, true, &writes.0)).unwrap();
    let Ok(Some(Request::RegionWriteMulti(writes))) = connection.next() else {
        panic!("no writes");
    };
    let write = |offset, data: &[u8]| RegionWrite {
        region: 2,
        offset,
        data: data.to_vec(),
    };
    assert_eq!(
        writes,
        [write(8, &[1, 2]), write(12, &[7, 0, 0, 0, 0, 0, 0, 0])]
    );
}

#[test]
fn memory_can_come_without_a_file() {
    let (mut connection, mut client) = negotiated();
    let map = Payload::default()
        .u32(32)
        .u32(1)
        .u64(0)
        .u64(0x1000)
        .u64(0x1000);
    client.write_all(&command(2, false, &map.0)).unwrap();
    let Ok(Some(Request::DmaMap(map))) = connection.next() else {
        panic!("no map");
    };
    assert_eq!((map.flags, map.address), (DmaFlags::READ, 0x1000));
    assert!(map.fd.is_none());
}

proptest! {
    #[test]
    fn any_bytes_are_requests_or_end_the_connection(
        number in 0u16..18,
        payload in prop::collection::vec(any::<u8>(), 0..128),
        tail in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let (mut connection, mut client) = negotiated();
        client.write_all(&command(number, false, &payload)).unwrap();
        client.write_all(&tail).unwrap();
        mem::drop(client);
        while let Ok(request) = connection.next() {
            if request.is_some() {
                let _ = connection.reply_done();
            }
        }
    }
}
