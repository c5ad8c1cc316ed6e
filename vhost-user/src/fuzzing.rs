//! A front-end that sends any bytes with descriptors of any kind, for `fuzz/` and for tests that
//! replay its corpus.

use std::fs::File;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use ipc::{SharedEventFd, Stream};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use virtio::test_utils::NullDevice;
use virtio::{RingOptions, Runner};

use crate::{SocketTransport, session};

/// Length of the memory that the front-end shares.
const MEMORY: u64 = 0x1_0000;

const DEVICE: NullDevice = NullDevice {
    queues: 2,
    // Any one bit, so that a front-end can negotiate a feature of the device.
    features: 1 << 5,
};

/// Serves a device to a front-end that sends `input` and leaves. The input consists of parts. Each
/// part begins with two bytes: the kind of descriptors to send with the part, see [`descriptors`],
/// and the length of the part.
///
/// # Panics
///
/// When the session panics or fails, or the system is out of descriptors.
pub fn check(input: &[u8]) {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let leave = theirs.try_clone().expect("a descriptor");
    let front_end = Stream::new(theirs).expect("a socket");
    let mut rest = input;
    while let [kind, len, tail @ ..] = rest {
        let (part, tail) = tail.split_at(tail.len().min(usize::from(*len)));
        let files = descriptors(*kind);
        let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        // Bytes that the socket does not take are lost, as if the input did not have them.
        let _ = front_end.send(part, &fds);
        rest = tail;
    }
    leave.shutdown(Shutdown::Write).expect("a socket");
    let rings = RingOptions {
        max_size: 256,
        ..RingOptions::default()
    };
    let mut runner = Runner::new(Arc::new(DEVICE), rings);
    let mut transport = SocketTransport::connected(ours).expect("a socket");
    let stop = SharedEventFd::new().expect("a descriptor");
    session::serve(&mut transport, &mut runner, stop.as_fd()).expect("the system works");
}

/// The descriptors of this kind. The lower four bits choose the file, and the upper four bits the
/// number of its descriptors minus 1. Of file 0 there are no descriptors.
fn descriptors(kind: u8) -> Vec<OwnedFd> {
    let Some(file) = file(kind & 0xf) else {
        return Vec::new();
    };
    let copies = 0..kind >> 4;
    let mut files: Vec<_> = copies.map(|_| file.try_clone().expect("a copy")).collect();
    files.push(file);
    files
}

/// A file of this kind.
fn file(kind: u8) -> Option<OwnedFd> {
    let events = |count, flags| eventfd(count, flags).expect("an eventfd");
    let pipe = || rustix::pipe::pipe().expect("a pipe");
    Some(match kind {
        1 => memory(),
        2 => events(0, EventfdFlags::CLOEXEC),
        // An eventfd that stays readable.
        3 => events(u32::MAX, EventfdFlags::CLOEXEC | EventfdFlags::SEMAPHORE),
        4 => full_eventfd(),
        5 => pipe().0,
        6 => pipe().1,
        7 => File::open("/dev/zero").expect("a device").into(),
        8 => File::open("/").expect("a folder").into(),
        9 => UnixStream::pair().expect("sockets").0.into(),
        10 => sealed_memory(),
        _ => return None,
    })
}

fn memory() -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = memfd_create("memory", flags).expect("a descriptor");
    ftruncate(&memory, MEMORY).expect("memory");
    memory
}

/// Memory that cannot be written to.
fn sealed_memory() -> OwnedFd {
    let memory = memory();
    fcntl_add_seals(&memory, SealFlags::WRITE | SealFlags::SHRINK).expect("seals");
    memory
}

fn full_eventfd() -> OwnedFd {
    let full = eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd");
    rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).expect("room for a signal");
    full
}

#[cfg(test)]
mod tests;
