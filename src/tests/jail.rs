//! Tests of the programs' jail, as another process sees it from outside the jail.

mod blocked;
mod refused;

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{PidfdFlags, pidfd_open};

use super::disk::Disk;
use super::harness::{Folder, PATIENCE, Running, children, ends};
#[cfg(target_arch = "x86_64")]
use super::inject;

const BLOCK: &str = env!("CARGO_BIN_EXE_vvu-block");
const ENTROPY: &str = env!("CARGO_BIN_EXE_vvu-entropy");
const PROXY: &str = env!("CARGO_BIN_EXE_vvu-proxy");

/// The id of the user `nobody`, an example of an unprivileged user.
const NOBODY: u32 = 65534;

/// Starts a program with all parts of the jail, and waits until it is ready.
fn jailed(folder: &Folder, program: &str, arguments: &str) -> Running {
    let running = Running::start(folder.command(program, &format!("{arguments} --sandbox=full")));
    running.line();
    running
}

/// The programs under test, each with its arguments and the name of its context.
fn programs() -> [(&'static str, &'static str, &'static str); 5] {
    let raw = "--socket-path vu.sock disk.img";
    let qcow2 = "--socket-path vu.sock --format qcow2 disk.qcow2";
    let function = "--virtio-pci-socket blk.sock disk.img";
    let proxy =
        "--socket-path vu.sock --vfio-user-path vvu.sock --any-memory-file --memory ram,size=1M";
    [
        (BLOCK, raw, "block_device_vhost_user"),
        (BLOCK, qcow2, "block_qcow2_device_vhost_user"),
        (BLOCK, function, "block_device"),
        (
            ENTROPY,
            "--socket-path vu.sock",
            "entropy_device_vhost_user",
        ),
        (PROXY, proxy, "vvu_proxy_device"),
    ]
}

/// A folder with a raw image and a qcow2 image.
fn images() -> Folder {
    let folder = Folder::new();
    folder.make_qcow2("disk.qcow2", None);
    folder
}

/// The process in the jail.
fn inside(running: &Running) -> i32 {
    children(running.id())[0].as_raw_pid()
}

fn status(pid: i32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().last().unwrap().to_owned()
}

fn namespace(pid: &str, name: &str) -> std::path::PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap()
}

#[test]
fn nothing_is_to_be_seen_from_inside() {
    for (program, arguments, _) in programs() {
        let folder = images();
        let running = jailed(&folder, program, arguments);
        let pid = inside(&running);
        for name in ["pid", "mnt", "net", "ipc", "uts"] {
            assert_ne!(
                namespace(&pid.to_string(), name),
                namespace("self", name),
                "{name}"
            );
        }
        assert_eq!(
            fs::read_dir(format!("/proc/{pid}/root")).unwrap().count(),
            0
        );
        for field in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
            assert_eq!(status(pid, field), "0000000000000000", "{field}");
        }
        assert_eq!(status(pid, "NoNewPrivs"), "1");
        assert_eq!(status(pid, "Seccomp:"), "2", "a filter");
        running.signal(libc::SIGTERM);
        assert_eq!(running.output().status.code(), Some(0));
    }
}

/// An unprivileged user gets all parts of the jail if the system lets every user create user
/// namespaces.
#[test]
fn an_ordinary_user_serves_from_the_whole_jail() {
    let folder = Folder::new();
    copy_program(&folder);
    let arguments = "--sandbox=full --socket-path vu.sock disk.img";
    let mut command = folder.command("./vvu-block", arguments);
    if rustix::process::geteuid().is_root() {
        folder.give_to(NOBODY);
        command.uid(NOBODY).gid(NOBODY);
    }
    let running = Running::start(command);
    assert_eq!(running.line(), "ready: vhost-user vu.sock");
    assert_ne!(
        namespace(&inside(&running).to_string(), "user"),
        namespace("self", "user")
    );
    let mut disk = Disk::new(UnixStream::connect(folder.path("vu.sock")).unwrap());
    assert_eq!(disk.write(1, 0x77), 0);
    drop(disk);
    running.signal(libc::SIGTERM);
    assert_eq!(running.output().status.code(), Some(0));
    assert_eq!(fs::read(folder.path("disk.img")).unwrap()[512], 0x77);
}

/// Makes each kind of request on a qcow2 disk, whose image file grows.
#[test]
fn a_qcow2_image_is_served_from_the_whole_jail() {
    let folder = images();
    let length = || fs::metadata(folder.path("disk.qcow2")).unwrap().len();
    let before = length();
    let running = jailed(
        &folder,
        BLOCK,
        "--socket-path vu.sock --format qcow2 disk.qcow2",
    );
    let mut disk = Disk::new(UnixStream::connect(folder.path("vu.sock")).unwrap());
    for sector in [1, 128, 2047] {
        assert_eq!(disk.write(sector, 0x77), 0);
    }
    assert_eq!(disk.request(4, 0, None), 0, "flush");
    assert_eq!(disk.request(0, 128, Some((512, true))), 0, "read");
    assert_eq!(
        disk.change_range(13, 128, 8),
        0,
        "write zeroes to a part of a cluster"
    );
    assert_eq!(
        disk.change_range(13, 0, 128),
        0,
        "write zeroes to a cluster"
    );
    assert_eq!(disk.change_range(11, 128, 1920), 0, "discard");
    assert_eq!(disk.write(700, 0x78), 0);
    drop(disk);
    running.signal(libc::SIGTERM);
    let output = running.output();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(length() > before, "the file grew");
}

/// Copies the program to a folder where any user may run it. Another process makes the copy. If
/// this process made it, programs that other tests start at the same time would inherit a
/// descriptor of the copy. A file that a process has open for writing cannot be executed.
fn copy_program(folder: &Folder) {
    let mut copy = Command::new("cp");
    copy.arg(BLOCK).arg(folder.path("vvu-block"));
    assert!(copy.status().unwrap().success());
}

#[test]
fn the_inside_does_not_outlive_the_outside() {
    let folder = Folder::new();
    let running = jailed(&folder, BLOCK, "--socket-path vu.sock disk.img");
    let processes = children(running.id());
    let watched = processes
        .iter()
        .map(|pid| pidfd_open(*pid, PidfdFlags::empty()).unwrap());
    let watched: Vec<_> = watched.collect();
    running.signal(libc::SIGKILL);
    assert!(watched.iter().all(ends));
}

#[test]
fn the_supervisor_has_a_filter_and_only_the_capability_to_remove_its_sockets() {
    for (program, arguments, _) in programs() {
        let folder = images();
        let running = jailed(&folder, program, arguments);
        let pid = running.id() as i32;
        assert_eq!(status(pid, "Seccomp:"), "2", "a filter");
        assert_eq!(status(pid, "NoNewPrivs"), "1");
        for field in ["CapPrm", "CapEff"] {
            let capabilities = u64::from_str_radix(&status(pid, field), 16).unwrap();
            assert_eq!(capabilities & !CAP_DAC_OVERRIDE, 0, "{field}");
        }
        for field in ["CapInh", "CapAmb"] {
            assert_eq!(status(pid, field), "0000000000000000", "{field}");
        }
    }
}

/// The bit of this capability in the sets of proc_pid_status(5).
const CAP_DAC_OVERRIDE: u64 = 1 << 1;

#[test]
fn the_supervisor_has_neither_the_image_nor_sockets_open() {
    let folder = Folder::new();
    let running = jailed(&folder, BLOCK, "--socket-path vu.sock disk.img");
    for entry in fs::read_dir(format!("/proc/{}/fd", running.id())).unwrap() {
        let target = fs::read_link(entry.unwrap().path()).unwrap();
        let target = target.to_str().unwrap().to_owned();
        assert!(
            !target.contains("disk.img") && !target.contains("socket:"),
            "{target}"
        );
    }
}

#[test]
fn an_inherited_descriptor_that_the_command_line_does_not_name_is_closed() {
    for (program, arguments, _) in programs() {
        let folder = images();
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = folder.command(program, &format!("{arguments} --sandbox=none"));
        let inherited = writer.as_raw_fd();
        // SAFETY: dup2 is async-signal-safe, and the new descriptor is not closed on exec.
        unsafe {
            command.pre_exec(move || match libc::dup2(inherited, 77) {
                77 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let running = Running::start(command);
        drop(writer);
        running.line();
        let end = ipc::poll([ipc::Interest::readable(&reader)], Some(PATIENCE));
        assert_eq!(end.unwrap(), [true], "{program}");
    }
}

#[test]
fn both_processes_have_few_resources() {
    let folder = Folder::new();
    let running = jailed(&folder, BLOCK, "--socket-path vu.sock disk.img");
    for pid in [running.id() as i32, inside(&running)] {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        for name in [
            "Max core file size",
            "Max locked memory",
            "Max msgqueue size",
            "Max nice priority",
            "Max realtime priority",
        ] {
            let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
            let values: Vec<_> = line[name.len()..].split_whitespace().take(2).collect();
            assert_eq!(values, ["0", "0"], "{line}");
        }
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_forbidden_call_is_named_and_ends_the_program() {
    for (program, arguments, context) in programs() {
        let folder = images();
        let running = jailed(&folder, program, arguments);
        inject::call(inside(&running), libc::SYS_socket, [1, 2, 0]);
        let output = running.output();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let expected = format!("policy {context} does not allow socket(0x1, 0x2, 0x0, ");
        assert!(stderr.contains(&expected), "{stderr}");
        assert_eq!(output.status.code(), Some(3));
        assert!(
            !folder.names().iter().any(|name| name.ends_with(".sock")),
            "sockets are removed"
        );
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_forbidden_call_can_kill_at_once() {
    let folder = Folder::new();
    let arguments = "--seccomp-action=kill --socket-path vu.sock disk.img";
    let running = jailed(&folder, BLOCK, arguments);
    inject::call(inside(&running), libc::SYS_execve, [0; 3]);
    assert_eq!(running.output().status.code(), Some(128 + libc::SIGSYS));
}
