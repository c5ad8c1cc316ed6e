//! A vfio-user client that sends any bytes, for `fuzz/` and for tests that replay its corpus.

use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vfio_user::server::Connection;
use virtio::{ConfigError, DeviceKind, RingOptions, Runner, ServeError, ServedQueue, Wake};

use crate::{VirtioFunction, function};

/// Length of the memory that the client shares.
const MEMORY: u64 = 0x1_0000;

/// The client's first message: VERSION 0.1 without capabilities.
const VERSION: [u8; 23] = [
    0, 0, 1, 0, 23, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, b'{', b'}', 0,
];

/// A device whose queues do nothing.
struct Idle;

impl virtio::Device for Idle {
    fn kind(&self) -> DeviceKind {
        DeviceKind {
            id: 2,
            class: 0x01_0000,
        }
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_count(&self) -> u16 {
        2
    }

    fn read_config(&self, _offset: usize, _data: &mut [u8]) {}

    fn write_config(&self, offset: usize, data: &[u8]) -> Result<(), ConfigError> {
        Err(ConfigError::new(offset, data))
    }

    fn serve(&self, _queue: &mut ServedQueue, _wake: &Wake) -> Result<(), ServeError> {
        Ok(())
    }
}

/// Serves a function to a client that sends `input`. This consists of parts. Each begins with a
/// byte that names the file to send along (1: memory, 2: an eventfd, else none), and a byte with
/// the length of the part.
///
/// # Panics
///
/// When the function panics, or the system is out of descriptors.
pub fn check(input: &[u8]) {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    theirs.set_nonblocking(true).expect("a socket");
    let mut connection = Connection::new(ours).expect("a socket");
    let rings = RingOptions {
        max_size: 256,
        ..RingOptions::default()
    };
    let runner = Runner::new(Arc::new(Idle), rings);
    let mut device = VirtioFunction::new(runner).expect("descriptors");
    send(&theirs, &VERSION, &[]);
    let mut rest = input;
    while serve(&mut device, &mut connection, &theirs) {
        let [file, len, tail @ ..] = rest else {
            break;
        };
        let (part, tail) = tail.split_at(tail.len().min(usize::from(*len)));
        rest = tail;
        send_with(&theirs, part, *file);
    }
    function::disconnect(&mut device);
}

/// Answers all requests and drops the replies. False when the client is to be dropped.
fn serve(device: &mut VirtioFunction, connection: &mut Connection, client: &UnixStream) -> bool {
    let mut answers = [0; 4096];
    loop {
        let mut client = client;
        while client.read(&mut answers).is_ok_and(|count| count > 0) {}
        match connection.next() {
            Ok(None) if connection.wants_write() => {}
            Ok(None) => return true,
            Ok(Some(request)) => {
                if function::answer(device, connection, request).is_err() {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
}

fn send_with(client: &UnixStream, bytes: &[u8], file: u8) {
    match file {
        1 => {
            let memory = memfd_create("memory", MemfdFlags::CLOEXEC).expect("a descriptor");
            ftruncate(&memory, MEMORY).expect("memory");
            send(client, bytes, &[memory.as_fd()]);
        }
        2 => {
            let event = eventfd(0, EventfdFlags::CLOEXEC).expect("a descriptor");
            send(client, bytes, &[event.as_fd()]);
        }
        _ => send(client, bytes, &[]),
    }
}

fn send(client: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    // Bytes that the socket does not take are lost, as if the input did not have them.
    let _ = sendmsg(
        client,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    );
}

#[cfg(test)]
mod tests;
