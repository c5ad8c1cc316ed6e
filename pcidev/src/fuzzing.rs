//! A vfio-user client that sends arbitrary bytes, for the fuzz target in `fuzz/` and for tests with
//! the fuzz target's stored inputs.

pub mod proxy;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use ipc::Stream;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vfio_user::server::Connection;
use virtio::{DeviceKind, RingOptions, Runner, ServeError, ServedQueue, Wake};

use crate::function::Device;
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

/// Serves a function to a client that sends `input`. The input consists of parts. Each part begins
/// with two bytes: the file to send with the part, see [`file`], and the length of the part.
///
/// # Panics
///
/// When the function panics, or the system is out of descriptors.
pub fn check(input: &[u8]) {
    let rings = RingOptions {
        max_size: 256,
        ..RingOptions::default()
    };
    let runner = Runner::new(Arc::new(Idle), rings);
    let mut device = VirtioFunction::new(runner).expect("descriptors");
    let mut client = Client::connect();
    let mut rest = input;
    while client.serve(&mut device) {
        let [kind, len, tail @ ..] = rest else {
            break;
        };
        let (part, tail) = tail.split_at(tail.len().min(usize::from(*len)));
        rest = tail;
        client.send(part, file(*kind));
    }
    function::disconnect(&mut device);
}

/// A vfio-user client and the device's end of its connection.
struct Client {
    stream: Stream,
    connection: Connection,
    /// Memory that the client may share.
    memory: File,
}

impl Client {
    /// Connects to a device, and sends the version.
    fn connect() -> Self {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let client = Self {
            stream: Stream::new(theirs).expect("a socket"),
            connection: Connection::new(ours).expect("a socket"),
            memory: memory().into(),
        };
        client.send(&VERSION, None);
        client
    }

    /// Answers the requests that have arrived, and discards the replies. Returns false if the
    /// client has to be dropped.
    fn serve(&mut self, device: &mut impl Device) -> bool {
        let mut answers = [0; 4096];
        loop {
            while let Ok(Some(1..)) = self
                .stream
                .receive(&mut answers, &mut Vec::new(), usize::MAX)
            {}
            match self.connection.next() {
                Ok(None) if self.connection.wants_write() => {}
                Ok(None) => return true,
                Ok(Some(request)) => {
                    if function::answer(device, &mut self.connection, request).is_err() {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
    }

    /// Sends bytes, with a file or without.
    fn send(&self, bytes: &[u8], file: Option<OwnedFd>) {
        send(&self.stream, bytes, file);
    }

    /// Shares the memory at address 0.
    fn map_memory(&self) {
        // The fields are: argsz, flags, offset, address, size.
        let fields = [32 | 3 << 32, 0, 0, MEMORY].map(u64::to_le_bytes).concat();
        let memory = self.memory.try_clone().expect("a copy");
        self.send(&command(2, &fields), Some(memory.into()));
    }

    /// Writes to BAR 0.
    fn write(&self, offset: u64, data: &[u8]) {
        let head = [offset, (data.len() as u64) << 32].map(u64::to_le_bytes);
        self.send(&command(10, &[&head.concat(), data].concat()), None);
    }

    /// Writes to the memory.
    fn fill(&self, offset: u64, data: &[u8]) {
        self.memory.write_all_at(data, offset).expect("memory");
    }
}

/// The bytes of a command that wants no reply.
fn command(number: u32, payload: &[u8]) -> Vec<u8> {
    let size = 16 + payload.len() as u32;
    let header = [number << 16, size, 0x10, 0].map(u32::to_le_bytes).concat();
    [&header, payload].concat()
}

/// Sends bytes, with a file or without. Bytes that the socket does not take are lost, as if the
/// input did not have them.
fn send(stream: &Stream, bytes: &[u8], file: Option<OwnedFd>) {
    let fds: Vec<_> = file.iter().map(AsFd::as_fd).collect();
    let _ = stream.send(bytes, &fds);
}

/// A file of this kind; `None` for most numbers.
fn file(kind: u8) -> Option<OwnedFd> {
    let events = |count, flags| eventfd(count, flags | EventfdFlags::CLOEXEC).expect("an eventfd");
    Some(match kind {
        1 => memory(),
        2 => events(0, EventfdFlags::empty()),
        // An eventfd that stays readable.
        3 => events(u32::MAX, EventfdFlags::SEMAPHORE),
        4 => rustix::pipe::pipe().expect("a pipe").0,
        5 => File::open("/dev/zero").expect("a device").into(),
        _ => return None,
    })
}

fn memory() -> OwnedFd {
    let memory = memfd_create("memory", MemfdFlags::CLOEXEC).expect("a descriptor");
    ftruncate(&memory, MEMORY).expect("memory");
    memory
}

#[cfg(test)]
mod tests;
