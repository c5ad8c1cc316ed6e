//! Tests of the whole device. The tests act as the driver and as the front-end.

mod deadlines;
mod garbage;
mod lives;
mod signals;
mod vm;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use vhost_user::{Absent, Code, Connection, MemoryRegion, MemoryTable, Message, Reply, Request};

use super::*;
use crate::serve;
use virtio::memory::MemoryFiles;
use vm::{VECTORS, Vm, is_readable, take, wait};

const MEMORY: u64 = 0x80_0000;

/// A device that the event loop serves, the folder of its sockets, and the file of the front-end's
/// memory.
struct Host {
    dir: tempfile::TempDir,
    memory: File,
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    fn start() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = dir.path().join("memory");
        let memory = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        memory.set_len(MEMORY).unwrap();
        let window =
            Window::new(memory.try_clone().unwrap(), &path, MemoryFiles::default()).unwrap();
        let front_ends = Listener::bind(&dir.path().join("vhost-user")).unwrap();
        let clients = Listener::bind(&dir.path().join("vfio-user")).unwrap();
        let options = Options {
            max_vhost_queues: 16,
            uuid: [7; 16],
        };
        let stop = event();
        let stopped = stop.as_fd().try_clone_to_owned().unwrap();
        let thread = thread::spawn(move || {
            let mut device = VvuDevice::new(options, window, front_ends).unwrap();
            serve(&mut device, &clients, stopped.as_fd()).unwrap();
        });
        Self {
            dir,
            memory,
            stop,
            thread: Some(thread),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn vm(&self) -> Vm {
        Vm::connect(&self.path("vfio-user"))
    }

    fn front_end(&self) -> FrontEnd {
        let stream = UnixStream::connect(self.path("vhost-user")).unwrap();
        FrontEnd(Connection::new(stream).unwrap())
    }

    /// A device VM and a front-end that are connected through the device. The driver in the VM has
    /// seen the connection in the status field.
    fn connected(&self) -> (Vm, FrontEnd) {
        let mut vm = self.vm();
        vm.start_up();
        let front_end = self.front_end();
        assert_eq!(vm.config_changed(), 3);
        (vm, front_end)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        ring(&self.stop);
        // When the test has failed, the thread may hang.
        if !thread::panicking() {
            let result = self.thread.take().unwrap().join();
            assert!(result.is_ok(), "the device panicked");
        }
    }
}

/// The vhost-user front-end that is connected to the device.
struct FrontEnd(Connection);

impl FrontEnd {
    fn send(&mut self, message: &Message) {
        self.0.send(message, &[]).unwrap();
    }

    fn send_fds(&mut self, message: &Message, fds: &[BorrowedFd<'_>]) {
        self.0.send(message, fds).unwrap();
    }

    fn recv(&mut self) -> Message {
        loop {
            if let Some((message, _)) = self.0.recv().unwrap() {
                return message;
            }
            wait(&self.0);
        }
    }

    /// Waits until the device has closed the connection.
    fn closed(&mut self) {
        loop {
            match self.0.recv() {
                Ok(Some(_)) => {}
                Ok(None) => wait(&self.0),
                Err(error) if error.is_closed() => return,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).unwrap()
}

fn ring(event: &OwnedFd) {
    rustix::io::write(event, &1u64.to_ne_bytes()).unwrap();
}

/// Whether an eventfd is already signalled.
fn is_rung(event: &OwnedFd) -> bool {
    is_readable(event, Duration::ZERO)
}

fn request(code: Code, payload: &[u8]) -> Message {
    Message::request(code.number(), payload)
}

fn ack(question: &Message) -> Message {
    question.head.reply(&Reply::ack(true).payload)
}

fn number(code: Code, value: u64) -> Message {
    request(code, &value.to_le_bytes())
}

/// A SET_MEM_TABLE message. Each region is (guest address, size, offset in the file). The user
/// address of a region is equal to the guest address.
fn table(regions: &[(u64, u64, u64)]) -> Message {
    let region = |&(guest_addr, size, file_offset): &(u64, u64, u64)| MemoryRegion {
        guest_addr,
        size,
        user_addr: guest_addr,
        file_offset,
        memory: Absent,
    };
    let table = MemoryTable::new(regions.iter().map(region).collect()).unwrap();
    Request::<Absent>::SetMemTable(table).encode().0
}

#[test]
fn the_driver_finds_identity_and_configuration() {
    let host = Host::start();
    let mut vm = host.vm();
    assert_eq!(vm.read::<4>(7, 0), [0xf4, 0x1a, 0x7d, 0x10]);
    assert_eq!(vm.read::<8>(0, 0x2000), [0, 0, 0, 0, 16, 0, 0, 0]);
    assert_eq!(vm.read::<16>(0, 0x2008), [7; 16]);
    vm.start_up();
    assert_eq!(vm.link(), 1);
    vm.write(0, 0x2004, &[9; 4]);
    vm.write(0, 0x2000, &[9; 8]);
    assert_eq!(
        vm.read::<8>(0, 0x2000),
        [1, 0, 0, 0, 16, 0, 0, 0],
        "read-only"
    );
    let info = vm.client.region_info(4).unwrap();
    assert_eq!((info.size, info.file.is_some()), (MEMORY, true));
    assert_eq!(vm.client.region_info(2).unwrap().size, 0x4000);
    assert_eq!(vm.client.irq_info(2).unwrap().count, u32::from(VECTORS));
}

#[test]
fn capabilities_give_access_to_bars() {
    let host = Host::start();
    let mut vm = host.vm();
    let window = 0x84;
    assert_eq!(vm.read::<4>(7, window), [9, 0x98, 20, 5]);
    vm.write(7, window + 4, &[0]);
    vm.write(7, window + 8, &0x2004u32.to_le_bytes());
    vm.write(7, window + 12, &4u32.to_le_bytes());
    assert_eq!(
        vm.read::<4>(7, window + 16),
        [16, 0, 0, 0],
        "max_vhost_queues"
    );
    vm.write(7, window + 8, &u32::MAX.to_le_bytes());
    vm.read::<4>(7, window + 16);
}

#[test]
fn messages_cross_both_ways() {
    let host = Host::start();
    let (mut vm, mut front_end) = host.connected();
    front_end.send(&request(Code::GET_FEATURES, &[]));
    let question = vm.recv();
    assert_eq!(question.encode(), [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    vm.send(&question.head.reply(&0x1_7400_1244u64.to_le_bytes()));
    let answer = front_end.recv();
    assert_eq!(
        answer.as_number().unwrap(),
        0x1_7000_1244,
        "without LOG_ALL"
    );

    front_end.send(&request(Code::GET_PROTOCOL_FEATURES, &[]));
    let question = vm.recv();
    vm.send(&question.head.reply(&u64::MAX.to_le_bytes()));
    assert_eq!(front_end.recv().as_number().unwrap(), 0x1_225d);
    front_end.send(&number(Code::SET_PROTOCOL_FEATURES, 0xffff));
    assert_eq!(vm.recv().as_number().unwrap(), 0x225d);

    front_end.send(&request(Code::GET_QUEUE_NUM, &[]));
    let question = vm.recv();
    vm.send(&question.head.reply(&64u64.to_le_bytes()));
    assert_eq!(front_end.recv().as_number().unwrap(), 16);
}

#[test]
fn messages_may_be_cut_anywhere() {
    let host = Host::start();
    let mut vm = host.vm();
    vm.start();
    vm.post_chain(&[11, 2, 12]);
    vm.set_up(1);
    let mut front_end = host.front_end();
    let config = request(Code::GET_CONFIG, &[5; 13]);
    front_end.send(&config);
    assert_eq!(vm.recv(), config);
    let reply = config.head.reply(&[6; 13]);
    vm.send_cut(&reply.encode(), &[11, 2]);
    assert_eq!(front_end.recv(), reply);
}

#[test]
fn messages_wait_for_buffers_in_order() {
    let host = Host::start();
    let mut vm = host.vm();
    vm.start();
    vm.set_up(1);
    let mut front_end = host.front_end();
    assert_eq!(vm.config_changed(), 3);
    for value in 0..3 {
        front_end.send(&number(Code::SET_FEATURES, value));
    }
    for value in 0..3 {
        assert!(vm.try_recv().is_none());
        vm.post(1);
        assert_eq!(vm.recv().as_number().unwrap(), value);
    }
}

#[test]
fn a_driver_that_lies_needs_a_reset() {
    type Lie = fn(&mut Vm);
    let lies: [(&str, Lie); 6] = [
        ("longer than it says", |vm| {
            vm.send_cut(&[1, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 0], &[])
        }),
        ("shorter than a header", |vm| {
            vm.send_cut(&[1, 0, 0, 0], &[])
        }),
        ("very long", |vm| vm.send_cut(&[0; 5000], &[])),
        ("undefined status", |vm| vm.set_up(5)),
        ("no such descriptor", |vm| {
            vm.tx.publish(999);
            vm.write(0, 0x3004, &[1, 0]);
        }),
        ("memory gone", |vm| {
            // This message makes the device use the queue and the memory of the queue's rings.
            vm.send(&ack(&request(Code::SET_OWNER, &[])));
            vm.unmap();
            vm.write(0, 0x3004, &[1, 0]);
        }),
    ];
    for (what, lie) in lies {
        let host = Host::start();
        let (mut vm, mut front_end) = host.connected();
        lie(&mut vm);
        assert_eq!(vm.config_changed(), 0, "{what}");
        assert_eq!(vm.status(), 0x4f, "{what}");
        front_end.closed();
        vm.reset();
    }
}

#[test]
fn a_small_rx_buffer_needs_a_reset() {
    let host = Host::start();
    let mut vm = host.vm();
    vm.start();
    vm.post_chain(&[12, 7]);
    vm.set_up(1);
    let mut front_end = host.front_end();
    assert_eq!(vm.config_changed(), 3);
    front_end.send(&number(Code::SET_FEATURES, 1));
    assert_eq!(vm.config_changed(), 0);
    assert_eq!(vm.status(), 0x4f);
    vm.start_up();
    let mut front_end = host.front_end();
    front_end.send(&number(Code::SET_FEATURES, 2));
    assert_eq!(vm.recv().as_number().unwrap(), 2, "works again");
}

#[test]
fn memory_tables_are_rewritten() {
    let host = Host::start();
    let (mut vm, mut front_end) = host.connected();
    let fd = host.memory.as_fd();
    let tables: [(&[_], _); 2] = [
        (
            &[(1 << 32, 0x10_0000, 0x50_0000), (0, 0x10_0000, 0x10_0000)],
            [0x10_0000, 0x30_0000],
        ),
        (
            &[(0, 0x40_0000, 0), (1 << 32, 0x40_0000, 0x40_0000)],
            [0, 0],
        ),
    ];
    for (regions, offsets) in tables {
        front_end.send_fds(&table(regions), &[fd, fd]);
        let seen = Request::decode(&vm.recv(), vec![Absent; 2]).unwrap();
        let Request::SetMemTable(seen) = seen else {
            panic!("a memory table was sent");
        };
        let seen: Vec<_> = seen
            .regions()
            .iter()
            .map(|region| region.file_offset)
            .collect();
        assert_eq!(seen, offsets);
    }
    // Bytes that the front-end writes to its memory appear in the BAR.
    std::os::unix::fs::FileExt::write_at(&host.memory, &[0xab], 0x1234).unwrap();
    assert_eq!(vm.read::<1>(4, 0x1234), [0xab]);
}

#[test]
fn what_cannot_cross_is_refused() {
    let host = Host::start();
    let other = event();
    let fd = other.as_fd();
    let messages = [
        (table(&[(0, 0x1000, 0)]), vec![fd]),
        (table(&[(0, 0x1000, 0)]), vec![]),
        (number(Code::SET_VRING_KICK, 16), vec![fd]),
        (number(Code::SET_VRING_CALL, 0), vec![]),
        (number(Code::SET_VRING_ERR, 0x100), vec![fd]),
        (request(Code::SET_VRING_KICK, &[0; 7]), vec![fd]),
        (request(Code::SET_LOG_FD, &[]), vec![fd]),
        (request(Code::SET_BACKEND_REQ_FD, &[]), vec![fd]),
        (request(Code::ADD_MEM_REG, &[0; 40]), vec![fd]),
        (request(Code::SET_OWNER, &[]), vec![fd]),
        (request(Code::SET_OWNER, &[1]), vec![]),
    ];
    let (mut vm, mut front_end) = host.connected();
    for (message, fds) in &messages {
        front_end.send_fds(&message.clone().needing_reply(), fds);
        let answer = front_end.recv();
        assert_eq!(answer, message.head.reply(&Reply::ack(false).payload));
    }
    assert!(vm.try_recv().is_none(), "the driver saw none of it");
    for (message, fds) in &messages {
        front_end.send_fds(message, fds);
        front_end.closed();
        assert_eq!(vm.config_changed(), 0);
        vm.set_up(1);
        front_end = host.front_end();
        assert_eq!(vm.config_changed(), 3);
    }
}

/// The device must not acknowledge a request that has a reply, because the front-end would take the
/// acknowledgement for the reply.
#[test]
fn refused_requests_that_have_a_reply_get_no_acknowledgement() {
    let host = Host::start();
    let (mut vm, mut front_end) = host.connected();
    let config = request(Code::GET_CONFIG, &[0; 11]).needing_reply();
    front_end.send(&config);
    assert_eq!(front_end.recv(), config.head.reply(&[]));
    let log = request(Code::SET_LOG_BASE, &[0; 16]).needing_reply();
    front_end.send_fds(&log, &[event().as_fd()]);
    front_end.closed();
    assert_eq!(vm.config_changed(), 0);
    assert!(vm.try_recv().is_none(), "the driver saw none of it");
}

#[test]
fn unknown_requests_pass_and_replies_do_not() {
    let host = Host::start();
    let (mut vm, mut front_end) = host.connected();
    let unknown = Message::request(200, &[1, 2, 3]);
    front_end.send(&unknown);
    assert_eq!(vm.recv(), unknown);
    // The device drops a request of the back-end, because the protocol of the device has no channel
    // for requests to the front-end.
    vm.send(&unknown);
    vm.send(&unknown.head.reply(&[4]));
    assert_eq!(front_end.recv().payload, [4]);
    front_end.send(&unknown.head.reply(&[]));
    front_end.closed();
    assert_eq!(vm.config_changed(), 0);
}

#[test]
fn memory_may_move_while_in_use() {
    let host = Host::start();
    let (mut vm, mut front_end) = host.connected();
    front_end.send(&number(Code::SET_FEATURES, 1));
    assert_eq!(vm.recv().as_number().unwrap(), 1);
    vm.remap();
    front_end.send(&number(Code::SET_FEATURES, 2));
    let question = vm.recv();
    assert_eq!(question.as_number().unwrap(), 2);
    vm.remap();
    vm.send(&ack(&question));
    assert_eq!(front_end.recv().as_number().unwrap(), 0);
}
