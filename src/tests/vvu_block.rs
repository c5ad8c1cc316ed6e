//! `vvu-block`.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::sync::Arc;

use super::harness::{Folder, Running, is_served};
use vhost::vhost_user::message::VhostUserConfigFlags;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio::queue::{IN_ORDER, PACKED};
use virtio::test_utils::{AnyDriverRing, anonymous_file};
use virtio::{GuestMemory, Region};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

const PROGRAM: &str = env!("CARGO_BIN_EXE_vvu-block");

#[test]
fn wrong_usage_exits_with_2() {
    let folder = Folder::new();
    folder.fails(PROGRAM, "", 2, &["Usage"]);
    folder.fails(PROGRAM, "disk.img", 2, &["--socket-path"]);
    folder.fails(
        PROGRAM,
        "--socket-path a --fd 3 disk.img",
        2,
        &["cannot be used with"],
    );
    folder.fails(
        PROGRAM,
        "--socket-path a --queue-size 100 disk.img",
        2,
        &["power of two"],
    );
}

#[test]
fn unusable_images_are_named() {
    let folder = Folder::new();
    fs::create_dir(folder.path("folder")).unwrap();
    fs::write(folder.path("odd.img"), [0; 513]).unwrap();
    fs::write(folder.path("empty.img"), []).unwrap();
    for (image, words) in [
        ("missing.img", &["missing.img", "truncate"][..]),
        ("folder", &["folder", "is a directory"]),
        ("odd.img", &["odd.img", "513", "multiple of 512"]),
        ("empty.img", &["empty.img", "is empty"]),
        ("/dev/null", &["/dev/null", "neither"]),
    ] {
        folder.fails(PROGRAM, &format!("--socket-path vu.sock {image}"), 1, words);
    }
}

#[test]
fn it_can_be_a_pci_function() {
    let folder = Folder::new();
    let running = Running::start(folder.command(PROGRAM, "--virtio-pci-socket blk0.sock disk.img"));
    assert_eq!(running.line(), "ready: virtio-pci blk0.sock");
    let timeout = std::time::Duration::from_secs(20);
    let path = folder.path("blk0.sock");
    let mut client = vfio_user::Client::connect(&path, timeout).unwrap();
    let (mut id, mut capacity) = ([0; 4], [0; 8]);
    let config = vfio_user::index::CONFIG;
    client.region_read(config, 0, &mut id).unwrap();
    assert_eq!(id, [0xf4, 0x1a, 0x42, 0x10]);
    client.region_read(0, 0x2000, &mut capacity).unwrap();
    let length = fs::metadata(folder.path("disk.img")).unwrap().len();
    assert_eq!(u64::from_le_bytes(capacity) * 512, length);
    running.signal(libc::SIGTERM);
    assert!(running.output().status.success());
    assert!(!path.exists());
}

#[test]
fn two_programs_do_not_write_one_image() {
    let folder = Folder::new();
    let first = Running::start(folder.command(PROGRAM, "--socket-path a.sock disk.img"));
    assert!(first.line().starts_with("ready: "));
    for options in ["", "--read-only"] {
        folder.fails(
            PROGRAM,
            &format!("--socket-path b.sock {options} disk.img"),
            1,
            &["disk.img", "another program", "--lock=off"],
        );
    }
    let second = folder.command(PROGRAM, "--socket-path b.sock --lock=off disk.img");
    assert!(Running::start(second).line().starts_with("ready: "));
}

#[test]
fn images_that_do_not_fit_their_options_are_named() {
    let folder = Folder::new();
    fs::write(folder.path("odd.img"), [0; 4096 + 512]).unwrap();
    for (arguments, code, words) in [
        (
            "--block-size=4096 odd.img",
            1,
            &["odd.img", "4608", "%4096"][..],
        ),
        ("--block-size=1024 odd.img", 2, &["512 or 4096"]),
        ("--cache=fast odd.img", 2, &["writeback", "none", "unsafe"]),
    ] {
        folder.fails(
            PROGRAM,
            &format!("--socket-path vu.sock {arguments}"),
            code,
            words,
        );
    }
}

#[test]
fn unusable_sockets_are_named_and_left_alone() {
    let folder = Folder::new();
    folder.fails(
        PROGRAM,
        "--socket-path no/vu.sock disk.img",
        1,
        &["no/vu.sock", "folder"],
    );
    folder.fails(
        PROGRAM,
        "--socket-path disk.img disk.img",
        1,
        &["is not a socket"],
    );
    let _other = UnixListener::bind(folder.path("busy.sock")).unwrap();
    folder.fails(
        PROGRAM,
        "--socket-path busy.sock disk.img",
        1,
        &["another process listens"],
    );
    assert!(is_served(&folder.path("busy.sock")));
}

#[test]
fn unusable_functions_are_named() {
    let folder = Folder::new();
    for malformed in [
        "10.0",
        "0000:00:10",
        "0000:00:20.0",
        "00:10.8",
        "x",
        "0000:00:10.0/..",
    ] {
        folder.fails(
            PROGRAM,
            &format!("--pci {malformed} disk.img"),
            1,
            &[malformed],
        );
    }
    folder.fails(
        PROGRAM,
        "--pci ffff:ff:1f.7 disk.img",
        1,
        &["ffff:ff:1f.7", "lspci"],
    );
    folder.fails(
        PROGRAM,
        "--pci vfio-user:none.sock disk.img",
        1,
        &["none.sock"],
    );
}

#[test]
fn descriptors_that_are_no_socket_are_refused() {
    let folder = Folder::new();
    folder.fails(
        PROGRAM,
        "--fd 77 disk.img",
        1,
        &["--fd 77", "Unix stream socket"],
    );
}

#[test]
fn both_signals_end_it_and_the_socket_is_gone() {
    let folder = Folder::new();
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let running = Running::start(folder.command(PROGRAM, "--socket-path vu.sock disk.img"));
        assert_eq!(running.line(), "ready: vhost-user vu.sock");
        assert!(is_served(&folder.path("vu.sock")));
        running.signal(signal);
        assert_eq!(running.output().status.code(), Some(0));
        assert_eq!(folder.names(), ["disk.img"]);
    }
}

/// A disk of this program, with a front-end that we did not write.
pub struct Disk {
    front: Frontend,
    memory: Arc<GuestMemory>,
    ring: AnyDriverRing,
    kick: EventFd,
    call: EventFd,
}

impl Disk {
    const SIZE: u64 = 0x10000;
    const HEADER: u64 = 0x4000;
    const DATA: u64 = 0x5000;
    const STATUS: u64 = 0x6000;

    pub fn new(stream: UnixStream) -> Self {
        Self::with_rings(stream, 0)
    }

    /// With these features of the rings, and no others.
    fn with_rings(stream: UnixStream, rings: u64) -> Self {
        let mut front = Frontend::from_stream(stream, 16);
        front.set_owner().unwrap();
        // Without EVENT_IDX there is a call for each request.
        let features = !((1 << VIRTIO_RING_F_EVENT_IDX) | PACKED | IN_ORDER) | rings;
        let offered = front.get_features().unwrap();
        assert_eq!(offered & rings, rings);
        front.set_features(offered & features).unwrap();
        let protocol = front.get_protocol_features().unwrap();
        front.set_protocol_features(protocol).unwrap();

        let file = anonymous_file(Self::SIZE);
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: Self::SIZE,
            userspace_addr: 0,
            mmap_offset: 0,
            mmap_handle: file.as_raw_fd(),
        };
        front.set_mem_table(&[region]).unwrap();
        let region = Region::map(file, 0, GuestAddress(0), Self::SIZE, true).unwrap();
        let memory = Arc::new(GuestMemory::from_regions(vec![region]).unwrap());
        let packed = rings & PACKED != 0;
        let ring = AnyDriverRing::new(packed, memory.clone(), 0x1000, 16);
        let (kick, call) = (EventFd::new(0).unwrap(), EventFd::new(0).unwrap());
        let layout = ring.layout();
        let layout = VringConfigData {
            queue_max_size: 16,
            queue_size: layout.size,
            flags: 0,
            desc_table_addr: layout.desc.0,
            avail_ring_addr: layout.avail.0,
            used_ring_addr: layout.used.0,
            log_addr: None,
        };
        front.set_vring_num(0, 16).unwrap();
        front.set_vring_base(0, ring.position()).unwrap();
        front.set_vring_addr(0, &layout).unwrap();
        front.set_vring_kick(0, &kick).unwrap();
        front.set_vring_call(0, &call).unwrap();
        front.set_vring_enable(0, true).unwrap();
        // Answered only after all that came before, which itself has no answer.
        front.get_features().unwrap();
        Self {
            front,
            memory,
            ring,
            kick,
            call,
        }
    }

    /// Stops the vring, and starts it where it was.
    fn stop_and_start(&self) {
        let base = self.front.get_vring_base(0).unwrap();
        assert_eq!(base as u16, self.ring.position());
        self.front.set_vring_base(0, base as u16).unwrap();
        self.front.set_vring_kick(0, &self.kick).unwrap();
    }

    /// Does one request about a range, without data, and returns its status.
    pub fn change_range(&mut self, kind: u32, sector: u64, sectors: u32) -> u8 {
        let range = [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &[0; 4]].concat();
        self.memory
            .write_slice(&range, GuestAddress(Self::DATA))
            .unwrap();
        self.request(kind, 0, Some((16, false)))
    }

    /// Does one request and returns its status.
    pub fn request(&mut self, kind: u32, sector: u64, data: Option<(u32, bool)>) -> u8 {
        let header = [kind.to_le_bytes(), [0; 4]].concat();
        self.memory
            .write_slice(&header, GuestAddress(Self::HEADER))
            .unwrap();
        self.memory
            .write_obj(sector, GuestAddress(Self::HEADER + 8))
            .unwrap();
        self.memory
            .write_obj(0xffu8, GuestAddress(Self::STATUS))
            .unwrap();
        let mut buffers = vec![(Self::HEADER, 16, false)];
        buffers.extend(data.map(|(len, writable)| (Self::DATA, len, writable)));
        buffers.push((Self::STATUS, 1, true));
        self.ring.add(&buffers);
        self.kick.write(1).unwrap();
        while self.ring.pop_used().is_none() {
            self.call.read().unwrap();
        }
        self.memory.read_obj(GuestAddress(Self::STATUS)).unwrap()
    }

    pub fn write(&mut self, sector: u64, byte: u8) -> u8 {
        self.memory
            .write_slice(&[byte; 512], GuestAddress(Self::DATA))
            .unwrap();
        self.request(1, sector, Some((512, false)))
    }
}

#[test]
fn a_front_end_reads_and_writes_over_an_inherited_socket() {
    for engine in ["auto", "io_uring", "threads"] {
        serve_an_inherited_socket(engine);
    }
}

fn serve_an_inherited_socket(engine: &str) {
    let folder = Folder::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let arguments = format!("--fd 3 --serial blk0 --aio {engine} disk.img");
    let mut command = folder.command(PROGRAM, &arguments);
    let inherited = theirs.as_raw_fd();
    // SAFETY: dup2 is async-signal-safe and touches nothing of the parent.
    unsafe {
        command.pre_exec(move || match libc::dup2(inherited, 3) {
            3 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let running = Running::start(command);
    drop(theirs);
    assert_eq!(running.line(), "ready: vhost-user file descriptor 3");

    let mut disk = Disk::new(ours);
    let flags = VhostUserConfigFlags::WRITABLE;
    let (_, capacity) = disk.front.get_config(0, 8, flags, &[0; 8]).unwrap();
    assert_eq!(capacity, 2048u64.to_le_bytes());
    assert_eq!(disk.write(3, 0x5a), 0);
    assert_eq!(disk.request(4, 0, None), 0, "flush");
    assert_eq!(disk.request(8, 0, Some((20, true))), 0, "get id");
    assert_eq!(
        disk.memory
            .read_obj::<[u8; 5]>(GuestAddress(Disk::DATA))
            .unwrap(),
        *b"blk0\0"
    );
    drop(disk);
    assert_eq!(
        running.output().status.code(),
        Some(0),
        "its only front-end left"
    );

    let mut sector = [0; 512];
    let image = fs::File::open(folder.path("disk.img")).unwrap();
    image.read_exact_at(&mut sector, 3 * 512).unwrap();
    assert_eq!(sector, [0x5a; 512]);
}

#[test]
fn a_read_only_disk_refuses_writes_and_the_next_front_end_is_served() {
    let folder = Folder::new();
    let arguments = "--read-only --socket-path vu.sock disk.img";
    let running = Running::start(folder.command(PROGRAM, arguments));
    running.line();
    for _ in 0..2 {
        let mut disk = Disk::new(UnixStream::connect(folder.path("vu.sock")).unwrap());
        assert_eq!(disk.write(0, 1), 1);
        assert_eq!(disk.request(0, 0, Some((512, true))), 0, "read");
    }
    running.signal(libc::SIGTERM);
    assert_eq!(running.output().status.code(), Some(0));
    assert_eq!(fs::read(folder.path("disk.img")).unwrap(), vec![0; 1 << 20]);
}

#[test]
fn rings_are_what_the_front_end_wants() {
    let folder = Folder::new();
    let arguments = "--in-order=on --socket-path vu.sock disk.img";
    let running = Running::start(folder.command(PROGRAM, arguments));
    running.line();
    for (sector, rings) in (0..).zip([PACKED, IN_ORDER, PACKED | IN_ORDER, 0]) {
        let stream = UnixStream::connect(folder.path("vu.sock")).unwrap();
        let mut disk = Disk::with_rings(stream, rings);
        // More than once around the ring, with a stop on the way.
        for round in 0..20 {
            assert_eq!(disk.write(sector, round), 0);
            if round == 7 {
                disk.stop_and_start();
            }
        }
        assert_eq!(disk.request(0, sector, Some((512, true))), 0, "read");
        let byte: u8 = disk.memory.read_obj(GuestAddress(Disk::DATA)).unwrap();
        assert_eq!(byte, 19);
    }
    running.signal(libc::SIGTERM);
    assert_eq!(running.output().status.code(), Some(0));
}
