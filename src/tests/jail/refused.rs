//! Tests of the jail on systems that refuse a part of it.

use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::{fs, io};

use policies::compiler::{Arch, Instruction, Memory, Options, Policy, compile, load};

use super::{BLOCK, copy_program, inside};
use crate::disk::Disk;
use crate::harness::{Folder, Running};

/// Starts a program under a filter that refuses a system call, as the seccomp filter of a container
/// may do.
fn start_without(mut command: Command, refused: &str) -> Running {
    let filter = filter(&format!("@denylist\n{refused}\n"));
    // SAFETY: the closure runs between fork and exec, where it must not wait for a lock. Installing
    // a filter takes no lock. A failure allocates memory for the error, which glibc allows after a
    // fork.
    unsafe {
        command.pre_exec(move || seccompiler::apply_filter(&filter).map_err(io::Error::other));
    }
    Running::start(command)
}

/// Compiles the text of a policy to a filter.
fn filter(policy: &str) -> seccompiler::BpfProgram {
    let mut source = Memory::new();
    source.add("policy", policy);
    let options = Options {
        denylist: true,
        ..Options::default()
    };
    let loaded = load(&source, Path::new("policy"), &options).unwrap();
    let program = compile(&Policy::merge(&loaded, Arch::HOST.unwrap()).unwrap()).unwrap();
    let filter = |Instruction { code, jt, jf, k }| seccompiler::sock_filter { code, jt, jf, k };
    program.into_iter().map(filter).collect()
}

#[test]
fn one_warning_names_all_that_the_jail_lacks() {
    let folder = Folder::new();
    let command = folder.command(BLOCK, "--socket-path vu.sock disk.img");
    let running = start_without(command, "unshare: return EPERM");
    assert_eq!(running.line(), "ready: vhost-user vu.sock");
    running.signal(libc::SIGTERM);
    let stderr = String::from_utf8(running.output().stderr).unwrap();
    let warnings: Vec<_> = stderr
        .lines()
        .filter(|line| line.contains("WARN"))
        .collect();
    assert_eq!(warnings.len(), 1, "{stderr}");
    let parts = "process namespace, network and IPC namespaces, empty root file system: ";
    assert!(warnings[0].contains(parts), "{stderr}");
    assert!(warnings[0].contains("CAP_SYS_ADMIN"), "{stderr}");
    assert!(!warnings[0].contains("--sandbox"), "{stderr}");
}

#[test]
fn no_program_starts_without_its_filter_or_with_privileges() {
    for refused in [
        "seccomp: return EPERM",
        "prctl: arg0 == PR_SET_NO_NEW_PRIVS; return EPERM",
        "capset: return EPERM",
    ] {
        let folder = Folder::new();
        let command = folder.command(BLOCK, "--sandbox=auto --socket-path vu.sock disk.img");
        let output = start_without(command, refused).output();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{refused}: {stderr}");
        assert!(output.stdout.is_empty(), "{refused}: not ready");
        assert_eq!(stderr.lines().count(), 1, "{refused}: {stderr}");
        assert!(
            stderr.contains("with --sandbox=none"),
            "{refused}: {stderr}"
        );
        assert_eq!(folder.names(), ["disk.img"], "{refused}");
        let command = folder.command(BLOCK, "--sandbox=none --socket-path vu.sock disk.img");
        assert!(
            start_without(command, refused)
                .line()
                .starts_with("ready: ")
        );
    }
}

/// Simulates a system where kernel.io_uring_disabled is 1 and an unprivileged user runs the
/// program.
#[test]
fn all_queues_are_served_where_the_kernel_refuses_rings() {
    let folder = Folder::new();
    let command = folder.command(BLOCK, "--sandbox=full --socket-path vu.sock disk.img");
    let running = start_without(command, "io_uring_setup: return EPERM");
    running.line();
    let mut disk = Disk::new(UnixStream::connect(folder.path("vu.sock")).unwrap());
    for queue in [1, 15, 0] {
        disk.move_to(queue);
        assert_eq!(disk.write(u64::from(queue), 0x77), 0);
    }
    drop(disk);
    running.signal(libc::SIGTERM);
    let output = running.output();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(
        stderr.matches("kernel.io_uring_disabled").count(),
        1,
        "{stderr}"
    );
}

/// Simulates an initramfs, whose root cannot be moved, so pivot_root(2) fails with EINVAL.
#[test]
fn the_root_is_empty_where_it_cannot_be_moved() {
    let folder = Folder::new();
    let command = folder.command(BLOCK, "--sandbox=full --socket-path vu.sock disk.img");
    let running = start_without(command, "pivot_root: return EINVAL");
    assert_eq!(running.line(), "ready: vhost-user vu.sock");
    let root = format!("/proc/{}/root", inside(&running));
    assert_eq!(fs::read_dir(root).unwrap().count(), 0);
}

/// The test runs only as root, because only root may call chroot(2).
#[test]
fn a_program_in_a_chroot_has_the_whole_jail() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = Folder::new();
    copy_program(&folder);
    let script = "
        for name in usr lib lib64; do
            if [ -L /$name ]; then cp -P /$name .
            elif [ -d /$name ]; then mkdir $name && mount --bind /$name $name
            fi
        done
        exec chroot . /vvu-block --sandbox=full --socket-path /vu.sock /disk.img";
    let mut command = folder.command("unshare", "--mount sh -e -c");
    let running = Running::start({
        command.arg(script);
        command
    });
    assert_eq!(running.line(), "ready: vhost-user /vu.sock");
    let root = format!("/proc/{}/root", inside(&running));
    assert_eq!(fs::read_dir(root).unwrap().count(), 0);
    running.signal(libc::SIGTERM);
    let output = running.output();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
