//! A vfio-user server that lies to its client. The fuzz target in `fuzz/` uses this module, and
//! tests use it with the fuzz target's stored inputs.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use ipc::{Interest, Stream, poll};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::types::{DmaFlags, RegionInfo, index};
use crate::wire::{HEADER_SIZE, Header, Kind};
use crate::{Client, ClientError};

/// The time limit for a reply. Inputs that stop in the middle of a message take this time.
const TIMEOUT: Duration = Duration::from_millis(20);

/// The bit of a part's first byte that stands for bytes without a header.
const RAW: u8 = 0x80;
/// The bit of a part's first byte that stands for a reply to a command that failed.
const REFUSAL: u8 = 0x40;
/// The bits of a part's first byte that choose the files to send with the part.
const FILES: u8 = 0x3f;

/// Lets a client use the device of a server that sends `input`. The input consists of parts. Each
/// part begins with two bytes: how to send the part, and the length of the part. Most parts are the
/// payload of a reply to the next command of the client, with the header that the client expects.
/// The server leaves after the last part.
///
/// # Panics
///
/// When the client accepts a description that contradicts itself, or the system is out of
/// descriptors.
pub fn check(input: &[u8]) {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let server = Stream::new(theirs).expect("a socket");
    thread::scope(|scope| {
        scope.spawn(|| lie(server, input));
        if let Ok(client) = Client::from_stream(ours, TIMEOUT) {
            use_device(client);
        }
    });
}

/// Sends each command that a driver sends. Every command may fail.
fn use_device(mut client: Client) {
    let _ = client.device_info();
    for region in [index::BAR0, index::CONFIG] {
        let Ok(info) = client.region_info(region) else {
            continue;
        };
        check_region(&info);
        let _ = client.region_io_fds(region);
    }
    let _ = client.irq_info(index::MSIX);
    let mut data = [0; 8];
    let _ = client.region_read(index::CONFIG, 0, &mut data);
    let _ = client.region_write(index::BAR0, 0x10, &data);
    let file = memory();
    let access = DmaFlags::READ | DmaFlags::WRITE;
    let _ = client.dma_map(0x1000, 0x1000, file.as_fd(), 0, access);
    let event = event();
    let _ = client.set_irqs(index::MSIX, 0, &[Some(event.as_fd()), None]);
    let _ = client.disable_irqs(index::MSIX);
    let _ = client.dma_unmap(0x1000, 0x1000);
    if let Err(ClientError::TooLong(len)) = client.reset() {
        panic!("a reset has no data, but its {len} bytes are too long");
    }
}

/// Checks the promises of [`Client::region_info`].
fn check_region(info: &RegionInfo) {
    assert!(info.areas.is_empty() || info.file.is_some(), "no file");
    for area in &info.areas {
        let end = area.offset.checked_add(area.size);
        assert!(end.is_some_and(|end| end <= info.size), "an area outside");
        assert!(end.is_some_and(|end| end.checked_add(info.offset).is_some()));
    }
}

/// Sends all parts of the input, until the client leaves.
fn lie(server: Stream, input: &[u8]) {
    let mut rest = input;
    while let [how, len, tail @ ..] = rest {
        let (part, tail) = tail.split_at(tail.len().min(usize::from(*len)));
        rest = tail;
        if how & RAW != 0 {
            send(&server, part, how & FILES);
            continue;
        }
        let Some(command) = next_command(&server) else {
            return;
        };
        let errno = (how & REFUSAL != 0).then_some(22);
        let header = Header {
            kind: Kind::Reply { errno },
            ..command
        };
        let reply = [&header.encode(part.len()), part].concat();
        send(&server, &reply, how & FILES);
    }
}

/// The header of the client's next command. `None` if the client has left.
fn next_command(server: &Stream) -> Option<Header> {
    let mut header = [0; HEADER_SIZE];
    receive(server, &mut header)?;
    let (header, len) = Header::decode(&header).expect("a header of our client");
    receive(server, &mut vec![0; len])?;
    Some(header)
}

/// Fills a buffer with bytes of the client. `None` if the client leaves before.
fn receive(server: &Stream, buffer: &mut [u8]) -> Option<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        poll([Interest::readable(server)], None).expect("a socket");
        match server.receive(&mut buffer[filled..], &mut Vec::new(), usize::MAX) {
            Ok(Some(0)) | Err(_) => return None,
            Ok(Some(count)) => filled += count,
            Ok(None) => {}
        }
    }
    Some(())
}

/// Sends bytes with files. Bytes that the socket does not accept are dropped.
fn send(server: &Stream, bytes: &[u8], files: u8) {
    let files = choose_files(files);
    let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    let _ = server.send(bytes, &fds);
}

/// The lower three bits choose the file. The upper three bits are the number of further copies.
fn choose_files(files: u8) -> Vec<OwnedFd> {
    let file = match files & 7 {
        1 => memory(),
        2 => event(),
        3 => rustix::pipe::pipe().expect("a pipe").0,
        4 => File::open("/dev/zero").expect("a device").into(),
        5 => File::open("/").expect("a folder").into(),
        _ => return Vec::new(),
    };
    let copies = 0..files >> 3;
    let mut all: Vec<_> = copies.map(|_| file.try_clone().expect("a copy")).collect();
    all.push(file);
    all
}

fn memory() -> OwnedFd {
    let memory = memfd_create("memory", MemfdFlags::CLOEXEC).expect("a descriptor");
    ftruncate(&memory, 0x1000).expect("memory");
    memory
}

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).expect("a descriptor")
}

#[cfg(test)]
mod tests;
