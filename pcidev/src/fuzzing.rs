//! A vfio-user client that sends arbitrary bytes, for the fuzz target in `fuzz/` and for tests with
//! the fuzz target's stored inputs.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use ipc::{SharedEventFd, Stream};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vfio_user::server::Connection;
use virtio::{DeviceKind, RingOptions, Runner, ServeError, ServedQueue, Wake};

use crate::{VirtioFunction, function};

/// Length in bytes of the memory that the client shares.
const MEMORY: u64 = 0x1_0000;

/// The client's first message: VERSION 0.1 without capabilities.
const VERSION: [u8; 23] = [
    0, 0, 1, 0, 23, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, b'{', b'}', 0,
];

/// A device whose queues do nothing. An input can start many queues, and a device that serves them
/// would make the fuzzer slow.
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

    fn serve(&self, _queue: &mut ServedQueue, _wake: &Wake) -> Result<(), ServeError> {
        Ok(())
    }
}

/// Serves a function to a client that sends `input`. The input consists of parts. The first byte of
/// a part chooses the file that is sent with the part (1: memory, 2: an eventfd, otherwise no
/// file). The second byte is the number of message bytes that follow.
///
/// # Panics
///
/// When the function panics, or the system is out of descriptors.
pub fn check(input: &[u8]) {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let client = Stream::new(theirs).expect("a socket");
    let mut connection = Connection::new(ours).expect("a socket");
    let rings = RingOptions {
        max_size: 256,
        ..RingOptions::default()
    };
    let runner = Runner::new(Arc::new(Idle), rings);
    let mut device = VirtioFunction::new(runner).expect("descriptors");
    send(&client, &VERSION, 0);
    let mut rest = input;
    while serve(&mut device, &mut connection, &client) {
        let [file, len, tail @ ..] = rest else {
            break;
        };
        let (part, tail) = tail.split_at(tail.len().min(usize::from(*len)));
        rest = tail;
        send(&client, part, *file);
    }
    function::disconnect(&mut device);
}

/// Answers the requests that have arrived, and discards the replies. Returns false if the client
/// has to be dropped.
fn serve(device: &mut VirtioFunction, connection: &mut Connection, client: &Stream) -> bool {
    let mut answers = [0; 4096];
    loop {
        while let Ok(Some(1..)) = client.receive(&mut answers, &mut Vec::new(), usize::MAX) {}
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

/// Sends bytes, with or without a file. Bytes that the socket does not accept are dropped.
fn send(client: &Stream, bytes: &[u8], file: u8) {
    let _ = match file {
        1 => {
            let memory = memfd_create("memory", MemfdFlags::CLOEXEC).expect("a descriptor");
            ftruncate(&memory, MEMORY).expect("memory");
            client.send(bytes, &[memory.as_fd()])
        }
        2 => {
            let event = SharedEventFd::new().expect("a descriptor");
            client.send(bytes, &[event.as_fd()])
        }
        _ => client.send(bytes, &[]),
    };
}

#[cfg(test)]
mod tests;
