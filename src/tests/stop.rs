//! Tests of stopping programs, such as programs that hang.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::disk::Disk;
use super::harness::{Folder, Running, children, ends, ends_in};

const BLOCK: &str = env!("CARGO_BIN_EXE_vvu-block");
const PROXY: &str = env!("CARGO_BIN_EXE_vvu-proxy");

/// Starts a program, waits until it is ready, and stops its serving process with SIGSTOP. The
/// program then hangs.
fn hanging(folder: &Folder, program: &str, arguments: &str) -> Running {
    let running = Running::start(folder.command(program, arguments));
    running.line();
    kill_process(children(running.id())[0], Signal::STOP).unwrap();
    running
}

/// Waits for the end of a program. Returns its exit code and its stderr.
fn end(running: Running) -> (Option<i32>, String) {
    let output = running.output();
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), stderr)
}

#[test]
fn a_program_that_hangs_is_killed_in_time_and_its_image_is_flushed() {
    for sandbox in ["full", "seccomp", "none"] {
        let folder = Folder::new();
        let arguments =
            format!("--sandbox={sandbox} --stop-timeout 1 --socket-path vu.sock disk.img");
        let running = Running::start(folder.command(BLOCK, &arguments));
        running.line();
        let mut disk = Disk::new(UnixStream::connect(folder.path("vu.sock")).unwrap());
        assert_eq!(disk.write(1, 0x77), 0);
        kill_process(children(running.id())[0], Signal::STOP).unwrap();
        running.signal(libc::SIGTERM);
        let (code, stderr) = end(running);
        assert_eq!(code, Some(4), "{sandbox}: {stderr}");
        assert!(stderr.contains("did not stop in 0.5 s"), "{stderr}");
        assert!(stderr.contains("is on stable storage"), "{stderr}");
        assert_eq!(folder.names(), ["disk.img"], "{sandbox}");
        assert_eq!(std::fs::read(folder.path("disk.img")).unwrap()[512], 0x77);
    }
}

/// timeout(1) sends a signal to a program, and at once to its process group.
#[test]
fn a_signal_that_comes_twice_at_once_is_one_signal() {
    let folder = Folder::new();
    let running = hanging(&folder, BLOCK, "--socket-path vu.sock disk.img");
    running.signal(libc::SIGTERM);
    running.signal(libc::SIGINT);
    kill_process(children(running.id())[0], Signal::CONT).unwrap();
    let (code, stderr) = end(running);
    assert_eq!(code, Some(0), "{stderr}");
}

#[test]
fn a_second_signal_ends_a_program_that_hangs_at_once() {
    let block = "--stop-timeout 3600 --socket-path vu.sock disk.img";
    let proxy = "--stop-timeout 3600 --socket-path vu.sock --vfio-user-path vvu.sock \
                 --memory ram,size=1M --any-memory-file";
    for (program, arguments) in [(BLOCK, block), (PROXY, proxy)] {
        let folder = Folder::new();
        let running = hanging(&folder, program, arguments);
        let process = Pid::from_raw(running.id() as i32).unwrap();
        let process = pidfd_open(process, PidfdFlags::empty()).unwrap();
        running.signal(libc::SIGTERM);
        // The first signals may come too early to count as a second one.
        for _ in 0..100 {
            if ends_in(&process, Duration::from_millis(100)) {
                break;
            }
            running.signal(libc::SIGINT);
        }
        let (code, stderr) = end(running);
        assert_eq!(code, Some(4), "{stderr}");
        assert!(stderr.contains("a second signal came"), "{stderr}");
        assert!(!folder.names().iter().any(|name| name.ends_with(".sock")));
    }
}

/// SIGSTOP stops the process that flushes the image. This simulates storage that does not answer.
#[test]
fn storage_that_does_not_answer_is_reported_in_time() {
    let folder = Folder::new();
    let arguments = "--stop-timeout 1 --socket-path vu.sock disk.img";
    let running = hanging(&folder, BLOCK, arguments);
    let flusher = children(running.id())[1];
    let watched = pidfd_open(flusher, PidfdFlags::empty()).unwrap();
    kill_process(flusher, Signal::STOP).unwrap();
    running.signal(libc::SIGTERM);
    let (code, stderr) = end(running);
    rustix::process::pidfd_send_signal(&watched, Signal::KILL).unwrap();
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("did not flush the image in time"),
        "{stderr}"
    );
}

/// The image is unlocked before the program has ended, so the next program can start at once.
#[test]
fn nothing_of_a_program_is_left_when_it_has_stopped() {
    let folder = Folder::new();
    for _ in 0..10 {
        let running = Running::start(folder.command(BLOCK, "--socket-path vu.sock disk.img"));
        assert_eq!(running.line(), "ready: vhost-user vu.sock");
        let processes = children(running.id());
        let watched = processes
            .iter()
            .map(|pid| pidfd_open(*pid, PidfdFlags::empty()).unwrap());
        let watched: Vec<_> = watched.collect();
        running.signal(libc::SIGTERM);
        assert_eq!(end(running).0, Some(0));
        assert_eq!(watched.len(), 2);
        assert!(watched.iter().all(ends));
    }
}
