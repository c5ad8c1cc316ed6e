//! Tests of the program `vvu-block`.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;

use vhost_user::{FrontEnd, MemoryRegion, MemoryTable, ProtocolFeatures, Request};
use virtio::queue::{IN_ORDER, PACKED};

use super::disk::Disk;
use super::harness::{Folder, PATIENCE, Running, is_served};

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
fn a_driver_that_restarts_its_vring_again_and_again_does_not_bypass_limits() {
    let folder = Folder::new();
    let arguments = "--socket-path vu.sock --bps-write=1,burst=512 disk.img";
    let running = Running::start(folder.command(PROGRAM, arguments));
    assert_eq!(running.line(), "ready: vhost-user vu.sock");
    let mut disk = Disk::new(UnixStream::connect(folder.path("vu.sock")).unwrap());
    assert_eq!(disk.write(0, 0x77), 0);
    // The limit delays the next write by several minutes.
    disk.begin(1, 1, Some((512, false)));
    for _ in 0..50 {
        assert_eq!(disk.stop_and_start_anywhere(), 1);
    }
    drop(disk);
    running.signal(libc::SIGTERM);
    assert!(running.output().status.success());
    let image = fs::read(folder.path("disk.img")).unwrap();
    assert_eq!((image[511], image[512]), (0x77, 0));
}

#[test]
fn a_backing_file_elsewhere_is_refused_with_advice_that_works() {
    let (folder, pool) = (Folder::new(), Folder::new());
    let base = fs::canonicalize(pool.path("disk.img")).unwrap();
    folder.make_qcow2("top.qcow2", Some(&base));
    let arguments = "--socket-path vu.sock --format=qcow2 top.qcow2";
    let output = folder.run(PROGRAM, arguments);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    let mut words = error.split_whitespace();
    let advice = words.find(|word| word.starts_with("--backing-dir="));
    let arguments = format!("{arguments} {}", advice.expect("advice"));
    let running = Running::start(folder.command(PROGRAM, &arguments));
    assert_eq!(running.line(), "ready: vhost-user vu.sock");
    running.signal(libc::SIGTERM);
    let output = running.output();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{log}");
    let opened = format!("backing files of disk image top.qcow2: {}", base.display());
    assert!(log.contains(&opened), "{log}");
}

#[test]
fn a_name_in_an_image_does_not_reach_the_terminal_unchanged() {
    let folder = Folder::new();
    folder.make_qcow2("top.qcow2", Some("no\x1b[2Jthing".as_ref()));
    let output = folder.run(PROGRAM, "--socket-path vu.sock --format=qcow2 top.qcow2");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains(r"no\u{1b}[2Jthing does not exist"),
        "{error}"
    );
    assert!(!error.trim_end().contains(char::is_control), "{error:?}");
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
            &format!("--socket-path b.sock --stop-timeout 1 --log-level=warn {options} disk.img"),
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

/// The permissions of a file.
fn mode(path: &std::path::Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn other_users_can_connect_only_if_an_option_says_so() {
    let folder = Folder::new();
    for (carrier, options, expected) in [
        ("--socket-path", "", 0o600),
        ("--virtio-pci-socket", "", 0o600),
        ("--socket-path", "--socket-mode=666", 0o666),
        ("--virtio-pci-socket", "--socket-mode=660", 0o660),
    ] {
        let arguments = format!("{carrier} vu.sock {options} disk.img");
        let running = Running::start(folder.command(PROGRAM, &arguments));
        running.line();
        assert_eq!(mode(&folder.path("vu.sock")), expected, "{arguments}");
        running.signal(libc::SIGTERM);
        running.output();
    }
}

#[test]
fn memory_on_a_file_system_that_may_not_answer_is_refused_with_the_option_that_allows_it() {
    let folder = Folder::new();
    let arguments = "--sandbox=full --socket-path vu.sock disk.img";
    let running = Running::start(folder.command(PROGRAM, arguments));
    running.line();
    let mut front = FrontEnd::connect(&folder.path("vu.sock"), PATIENCE).unwrap();
    front.negotiate(u64::MAX, ProtocolFeatures::all()).unwrap();
    let file = fs::File::open("/proc/self/maps").unwrap();
    let region = MemoryRegion {
        guest_addr: 0,
        size: 0x1000,
        user_addr: 0,
        file_offset: 0,
        memory: file.as_fd(),
    };
    let table = MemoryTable::new(vec![region]).unwrap();
    assert!(front.request(Request::SetMemTable(table)).is_err());
    drop(front);
    running.signal(libc::SIGTERM);
    let stderr = String::from_utf8(running.output().stderr).unwrap();
    assert!(stderr.contains("--any-memory-file"), "{stderr}");
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
    folder.fails(PROGRAM, "--fd 77 disk.img", 1, &["--fd", "77 is not open"]);
    // These are descriptors that the program itself opened, such as the image and the socket to its
    // supervisor process.
    for number in 3..8 {
        let arguments = format!("--fd {number} disk.img");
        folder.fails(PROGRAM, &arguments, 1, &["--fd", &number.to_string()]);
    }
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

#[test]
fn a_front_end_reads_and_writes_over_an_inherited_socket() {
    for engine in ["auto", "io_uring", "threads"] {
        serve_an_inherited_socket(engine);
    }
}

#[test]
fn front_ends_connect_to_an_inherited_socket_one_after_the_other() {
    let folder = Folder::new();
    let path = folder.path("ours.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let running = start_with_descriptor_3(&folder, "--fd 3 disk.img", listener.as_raw_fd());
    drop(listener);
    assert_eq!(running.line(), "ready: vhost-user file descriptor 3");
    for sector in [3, 4] {
        let mut disk = Disk::new(UnixStream::connect(&path).unwrap());
        assert_eq!(disk.write(sector, 0x5a), 0);
    }
    running.signal(libc::SIGTERM);
    assert_eq!(running.output().status.code(), Some(0));
    assert!(path.exists(), "the socket belongs to who made it");
}

/// Starts the program. Its file descriptor 3 is a copy of `descriptor`, which belongs to this
/// process.
fn start_with_descriptor_3(folder: &Folder, arguments: &str, descriptor: RawFd) -> Running {
    let mut command = folder.command(PROGRAM, arguments);
    // SAFETY: both calls in the closure are async-signal-safe and do not touch memory of the
    // parent. The call of fcntl is needed if `descriptor` is 3, because dup2 then does not clear
    // FD_CLOEXEC.
    unsafe {
        command.pre_exec(move || {
            if libc::dup2(descriptor, 3) != 3 || libc::fcntl(3, libc::F_SETFD, 0) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    Running::start(command)
}

fn serve_an_inherited_socket(engine: &str) {
    let folder = Folder::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let arguments = format!("--fd 3 --serial blk0 --aio {engine} disk.img");
    let running = start_with_descriptor_3(&folder, &arguments, theirs.as_raw_fd());
    drop(theirs);
    assert_eq!(running.line(), "ready: vhost-user file descriptor 3");

    let mut disk = Disk::new(ours);
    assert_eq!(disk.capacity(), 2048);
    assert_eq!(disk.write(3, 0x5a), 0);
    assert_eq!(disk.request(4, 0, None), 0, "flush");
    assert_eq!(disk.request(8, 0, Some((20, true))), 0, "get id");
    assert_eq!(disk.data::<5>(), *b"blk0\0");
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
        // 20 requests go around the ring more than once. The vring is stopped and started again
        // after the eighth request.
        for round in 0..20 {
            assert_eq!(disk.write(sector, round), 0);
            if round == 7 {
                disk.stop_and_start();
            }
        }
        assert_eq!(disk.request(0, sector, Some((512, true))), 0, "read");
        assert_eq!(disk.data(), [19]);
    }
    running.signal(libc::SIGTERM);
    assert_eq!(running.output().status.code(), Some(0));
}
