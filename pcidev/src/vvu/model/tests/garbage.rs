//! Tests with random actions of a driver and of a front-end.

use proptest::prelude::*;
use vfio_user::DmaFlags;
use vfio_user::server::DmaMap;
use vhost_user::{Flags, Head};
use virtio::pci::common;
use virtio::test_utils::anonymous_file;

use super::*;

/// A random action of the driver or of the front-end.
#[derive(Clone, Debug)]
enum Step {
    Write(usize, u64, Vec<u8>),
    Read(usize, u64, usize),
    Memory(u64, Vec<u8>),
    Send(u32, u32, Vec<u8>, usize),
    Connect,
    Leave,
    Start,
    Reset,
}

fn offsets() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..0x40,
        Just(0x1000),
        0x2000u64..0x2020,
        0x3000u64..0x3008,
        0x5ff0u64..0x8000,
        any::<u64>(),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let bytes = |most| prop::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..most);
    prop_oneof![
        4 => (0usize..6, offsets(), bytes(9))
            .prop_map(|(bar, at, data)| Step::Write(bar, at, data)),
        1 => (0usize..6, offsets(), 0usize..9).prop_map(|(bar, at, len)| Step::Read(bar, at, len)),
        4 => (0u64..0x2000, bytes(40)).prop_map(|(at, data)| Step::Memory(at, data)),
        4 => (0u32..46, 0u32..16, bytes(48), 0usize..3)
            .prop_map(|(request, flags, data, fds)| Step::Send(request, flags | 1, data, fds)),
        1 => Just(Step::Connect),
        1 => Just(Step::Leave),
        2 => Just(Step::Start),
        1 => Just(Step::Reset),
    ]
}

struct World {
    device: VvuDevice,
    memory: Arc<File>,
    path: PathBuf,
    front_end: Option<Connection>,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let memory = anonymous_file(MEMORY).try_clone().unwrap();
        let window = Window::new(memory, &path, MemoryFiles::default()).unwrap();
        let options = Options {
            max_vhost_queues: 16,
            uuid: [0; 16],
        };
        let listener = Listener::bind(&path).unwrap();
        let mut device = VvuDevice::new(options, window, listener).unwrap();
        let memory = anonymous_file(0x2000);
        let map = DmaMap {
            address: 0,
            size: 0x2000,
            offset: 0,
            flags: DmaFlags::READ,
            fd: Some(memory.try_clone().unwrap().into()),
        };
        device.function().dma.map(map).unwrap();
        Self {
            device,
            memory,
            path,
            front_end: None,
            _dir: dir,
        }
    }

    /// Brings the device up to DRIVER_OK. The rings are at addresses that other random actions
    /// write to.
    fn start(&mut self) {
        let mut write = |offset, data: &[u8]| self.device.bar_write(0, offset, data);
        write(common::DRIVER_FEATURE_SELECT, &[1, 0, 0, 0]);
        write(common::DRIVER_FEATURE, &[1, 0, 0, 0]);
        write(common::DEVICE_STATUS, &[0xb]);
        for queue in 0..2u8 {
            write(common::QUEUE_SELECT, &[queue, 0]);
            write(common::QUEUE_SIZE, &[8, 0]);
            write(common::QUEUE_DRIVER, &[0, 8 + queue, 0, 0]);
            write(common::QUEUE_DEVICE, &[0, 16 + queue, 0, 0]);
            write(common::QUEUE_ENABLE, &[1, 0]);
        }
        write(common::DEVICE_STATUS, &[0xf]);
        write(0x2000, &[1, 0, 0, 0]);
    }

    fn send(&mut self, request: u32, flags: u32, payload: Vec<u8>, fds: usize) {
        let Some(front_end) = &mut self.front_end else {
            return;
        };
        let flags = Flags::from_bits_truncate(flags);
        let head = Head { request, flags };
        let message = Message { head, payload };
        let fd = event();
        // Sending fails if the device has closed the connection.
        let _ = front_end.send(&message, &vec![fd.as_fd(); fds]);
    }

    fn take(&mut self, step: Step) {
        use std::os::unix::fs::FileExt;
        match step {
            Step::Write(bar, at, data) => self.device.bar_write(bar, at, &data),
            Step::Read(bar, at, len) => self.device.bar_read(bar, at, &mut vec![0; len]),
            Step::Memory(at, data) => self.memory.write_all_at(&data, at & !1).unwrap(),
            Step::Send(request, flags, data, fds) => self.send(request, flags, data, fds),
            Step::Connect => {
                let stream = UnixStream::connect(&self.path).unwrap();
                self.front_end = Some(Connection::new(stream).unwrap());
            }
            Step::Leave => self.front_end = None,
            Step::Start => self.start(),
            Step::Reset => crate::function::reset(&mut self.device),
        }
        for number in self.device.poller().ready() {
            self.device.process(number).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nothing_makes_the_device_panic(steps in prop::collection::vec(steps(), 1..60)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        crate::function::disconnect(&mut world.device);
        assert!(world.device.front_end.is_none() && world.device.status == 0);
    }
}
