//! Tests of the program `vvu-proxy`.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use super::harness::{Folder, PATIENCE, Running, is_served};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vvu-proxy");
/// Arguments that name both sockets. Because the folder of a test may be on any file system, they
/// allow any memory file.
const SOCKETS: &str = "--any-memory-file --socket-path vu.sock --vfio-user-path vvu.sock";

#[test]
fn wrong_usage_exits_with_2() {
    let folder = Folder::new();
    folder.fails(PROGRAM, "", 2, &["Usage"]);
    folder.fails(PROGRAM, SOCKETS, 2, &["--memory"]);
    folder.fails(
        PROGRAM,
        &format!("{SOCKETS} --memory ram,size=x"),
        2,
        &["512M"],
    );
    folder.fails(
        PROGRAM,
        &format!("{SOCKETS} --memory ram --max-queues 257"),
        2,
        &["256"],
    );
}

#[test]
fn unusable_memory_is_named() {
    let folder = Folder::new();
    fs::write(folder.path("open.img"), [0; 4096]).unwrap();
    fs::set_permissions(folder.path("open.img"), Permissions::from_mode(0o666)).unwrap();
    symlink(folder.path("disk.img"), folder.path("link.img")).unwrap();
    for (memory, words) in [
        ("ram", &["ram", "does not exist", "size="][..]),
        (
            "disk.img,size=2M,trusted=on",
            &["disk.img", "1048576", "2097152"],
        ),
        ("open.img", &["open.img", "mode 666", "trusted=on"]),
        ("link.img", &["link.img", "symbolic link"]),
        ("/dev/null", &["/dev/null", "not a regular file"]),
        (".", &["directory"]),
        ("no/ram,size=1M", &["no/ram"]),
        ("ram,size=1000", &["multiple of 4096"]),
    ] {
        folder.fails(PROGRAM, &format!("{SOCKETS} --memory {memory}"), 1, words);
    }
}

#[test]
fn unusable_sockets_are_named_and_left_alone() {
    let folder = Folder::new();
    let _other = UnixListener::bind(folder.path("busy.sock")).unwrap();
    for sockets in [
        "--socket-path busy.sock --vfio-user-path vvu.sock",
        "--socket-path vu.sock --vfio-user-path busy.sock",
    ] {
        let arguments = format!("{sockets} --any-memory-file --memory ram,size=1M");
        folder.fails(
            PROGRAM,
            &arguments,
            1,
            &["busy.sock", "another process listens"],
        );
    }
    assert!(is_served(&folder.path("busy.sock")));
    let same = "--socket-path a.sock --vfio-user-path a.sock --memory ram,size=1M";
    folder.fails(PROGRAM, same, 1, &["a.sock"]);
}

#[test]
fn it_ends_when_told_and_leaves_only_the_memory() {
    let folder = Folder::new();
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let arguments = format!("{SOCKETS} --memory ram,size=1M");
        let running = Running::start(folder.command(PROGRAM, &arguments));
        assert_eq!(
            running.line(),
            "ready: vhost-user vu.sock, vfio-user vvu.sock"
        );
        assert!(is_served(&folder.path("vu.sock")) && is_served(&folder.path("vvu.sock")));
        running.signal(signal);
        assert_eq!(running.output().status.code(), Some(0));
        assert_eq!(folder.names(), ["disk.img", "ram"]);
    }
}

#[test]
fn a_device_vm_may_access_memory_by_messages() {
    const MEMORY_BAR: u32 = 4;
    let folder = Folder::new();
    let arguments = format!("{SOCKETS} --memory ram,size=1M");
    let running = Running::start(folder.command(PROGRAM, &arguments));
    running.line();
    let mut client = vfio_user::Client::connect(&folder.path("vvu.sock"), PATIENCE).unwrap();
    client.region_write(MEMORY_BAR, 0x1000, &[7; 8]).unwrap();
    let mut data = [0; 8];
    client.region_read(MEMORY_BAR, 0x1000, &mut data).unwrap();
    assert_eq!(data, [7; 8]);
    running.signal(libc::SIGTERM);
    assert_eq!(running.output().status.code(), Some(0));
}
