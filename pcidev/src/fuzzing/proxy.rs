//! A virtio-vhost-user device whose driver and front-end send any bytes, both at once.

use std::cell::RefCell;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use ipc::{Listener, Stream};
use virtio::memory::MemoryFiles;
use virtio::pci::{common, status};
use vvu_abi::status::BACKEND_UP;

use super::{Client, file};
use crate::function::{self, Device};
use crate::poller::Events;
use crate::vvu::{Options, VvuDevice, Window};

/// The first byte of a part whose bytes the front-end sends. The other bits are those of a client's
/// part.
const FRONT_END: u8 = 0x80;
/// The first byte of a part before which the front-end leaves.
const LEAVE: u8 = 0x40;

/// The addresses of the rings of the two message queues.
const RINGS: [u64; 2] = [0, 0x1000];

/// Serves a device to a driver and to front-ends. The input consists of parts, as for
/// [`check`](super::check). The upper two bits of a part's first byte choose the sender.
///
/// # Panics
///
/// When the device panics or fails, or the system is out of descriptors.
pub fn check(input: &[u8]) {
    let address = address();
    let listener = UnixListener::bind_addr(&address).expect("a listener");
    let listener = Listener::new(listener).expect("a listener");
    let memory = file(1).expect("memory");
    let file_of_proxy = memory.try_clone().expect("a copy").into();
    let window = Window::new(file_of_proxy, Path::new("memory"), MemoryFiles::default());
    let window = window.expect("a memfd");
    let options = Options {
        max_vhost_queues: 2,
        uuid: [7; 16],
    };
    let mut device = VvuDevice::new(options, window, listener).expect("descriptors");
    let mut client = Client::connect();
    start(&mut device, &mut client);
    let mut front_end = None;
    let mut rest = input;
    while client.serve(&mut device) {
        process(&mut device);
        let [first, len, tail @ ..] = rest else {
            break;
        };
        let (part, tail) = tail.split_at(tail.len().min(usize::from(*len)));
        rest = tail;
        if first & LEAVE != 0 {
            front_end = None;
        }
        let kind = first & 0xf;
        if first & FRONT_END == 0 {
            client.send(part, file(kind));
            continue;
        }
        // The proxy accepts no other memory than its own file.
        let file = if kind == 1 {
            memory.try_clone().ok()
        } else {
            file(kind)
        };
        let front_end = front_end.get_or_insert_with(|| connect(&address));
        super::send(front_end, part, file);
    }
    function::disconnect(&mut device);
}

/// An address of this thread, outside of the file system.
fn address() -> SocketAddr {
    thread_local!(static NAME: RefCell<Option<SocketAddr>> = const { RefCell::new(None) });
    NAME.with_borrow_mut(|known| {
        let new = || {
            let thread = rustix::thread::gettid().as_raw_nonzero();
            SocketAddr::from_abstract_name(format!("vvu-fuzzing-{thread}")).expect("a short name")
        };
        known.get_or_insert_with(new).clone()
    })
}

fn connect(address: &SocketAddr) -> Stream {
    let stream = UnixStream::connect_addr(address).expect("a backlog with room");
    Stream::new(stream).expect("a socket")
}

/// Brings the device up: two rings in memory at address 0, and a driver that waits for a front-end.
fn start(device: &mut VvuDevice, client: &mut Client) {
    client.map_memory();
    client.write(
        common::DEVICE_STATUS,
        &[status::ACKNOWLEDGE | status::DRIVER],
    );
    client.write(common::DRIVER_FEATURE_SELECT, &1u32.to_le_bytes());
    client.write(common::DRIVER_FEATURE, &3u32.to_le_bytes());
    client.write(common::DEVICE_STATUS, &[0xb]);
    for (queue, base) in (0u16..).zip(RINGS) {
        client.write(common::QUEUE_SELECT, &queue.to_le_bytes());
        client.write(common::QUEUE_SIZE, &16u16.to_le_bytes());
        client.write(common::QUEUE_DESC, &base.to_le_bytes());
        client.write(common::QUEUE_DRIVER, &(base + 0x100).to_le_bytes());
        client.write(common::QUEUE_DEVICE, &(base + 0x200).to_le_bytes());
        client.write(common::QUEUE_ENABLE, &1u16.to_le_bytes());
    }
    client.write(common::DEVICE_STATUS, &[0xf]);
    client.serve(device);
    client.write(CONFIG, &BACKEND_UP.to_le_bytes());
    // Buffers for the first messages of the front-end.
    let descriptors = (0..16u64).flat_map(|n| [0x4000 + 0x200 * n, 0x200 | 2 << 32]);
    let descriptors: Vec<u8> = descriptors.flat_map(u64::to_le_bytes).collect();
    client.fill(RINGS[0], &descriptors);
    let heads: Vec<u8> = [0, 16]
        .into_iter()
        .chain(0..16u16)
        .flat_map(u16::to_le_bytes)
        .collect();
    client.fill(RINGS[0] + 0x100, &heads);
}

/// The offset in BAR 0 of the device configuration.
const CONFIG: u64 = 0x2000;

/// Handles all events that have come.
fn process(device: &mut VvuDevice) {
    let mut events = Events::default();
    let waited = device.poller().wait(&mut events, Some(Duration::ZERO));
    waited.expect("an epoll instance");
    let numbers: Vec<u32> = events.of_device().collect();
    for number in numbers {
        device.process(number).expect("the system works");
    }
}
