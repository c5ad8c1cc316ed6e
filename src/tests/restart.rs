//! Tests of programs that start again right after a crash.

use std::os::unix::net::UnixStream;
use std::process::Command;

use rustix::process::{PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use virtio::queue::PACKED;

use super::disk::Disk;
use super::harness::{Folder, PATIENCE, Running, children, lines};

const BLOCK: &str = env!("CARGO_BIN_EXE_vvu-block");

/// The type of a write request, and the size of its data.
const WRITE: u32 = 1;
const SIZE: u32 = 4096;

fn command(folder: &Folder) -> Command {
    folder.command(BLOCK, "--socket-path vu.sock disk.img")
}

/// Starts the program and waits until it is ready.
fn start(folder: &Folder) -> Running {
    let running = Running::start(command(folder));
    assert_eq!(running.line(), "ready: vhost-user vu.sock");
    running
}

/// Makes as many write requests as fit in the ring, and does not wait for their ends.
fn load(folder: &Folder) -> Disk {
    let mut disk = Disk::new(UnixStream::connect(folder.path("vu.sock")).unwrap());
    for sector in [0, 8, 16, 24, 32] {
        disk.begin(WRITE, sector, Some((SIZE, false)));
    }
    disk
}

#[test]
fn a_program_that_is_killed_under_load_starts_again_at_once() {
    let folder = Folder::new();
    for _ in 0..10 {
        let running = start(&folder);
        let _disk = load(&folder);
        for process in children(running.id()) {
            kill_process(process, Signal::KILL).unwrap();
        }
        running.signal(libc::SIGKILL);
        start(&folder);
    }
}

#[test]
fn a_program_whose_serving_process_is_killed_under_load_starts_again_at_once() {
    let folder = Folder::new();
    for _ in 0..10 {
        let running = start(&folder);
        let _disk = load(&folder);
        kill_process(children(running.id())[0], Signal::KILL).unwrap();
        start(&folder);
    }
}

/// SIGSTOP stops the process that flushes the image. This simulates storage that is slow.
#[test]
fn a_start_waits_while_the_image_of_a_killed_program_is_flushed() {
    let folder = Folder::new();
    let first = start(&folder);
    let processes = children(first.id());
    let flusher = pidfd_open(processes[1], PidfdFlags::empty()).unwrap();
    pidfd_send_signal(&flusher, Signal::STOP).unwrap();
    kill_process(processes[0], Signal::KILL).unwrap();

    let (log, stderr) = std::io::pipe().unwrap();
    let mut second = command(&folder);
    second.stderr(stderr);
    let second = Running::start(second);
    let line = lines(log).recv_timeout(PATIENCE).expect("a line on stderr");
    assert!(line.contains("another program uses the image"), "{line}");
    pidfd_send_signal(&flusher, Signal::CONT).unwrap();
    assert_eq!(second.line(), "ready: vhost-user vu.sock");
}

/// The front-end takes a call and does not look at the ring. This simulates a program that ended
/// between the used buffer and the call.
#[test]
fn a_ring_that_starts_with_a_used_buffer_without_a_call_gets_a_call() {
    let folder = Folder::new();
    let _running = start(&folder);
    for rings in [0, PACKED] {
        let stream = UnixStream::connect(folder.path("vu.sock")).unwrap();
        let mut disk = Disk::with_rings(stream, rings);
        disk.wait_for_call();
        disk.begin(WRITE, 0, Some((SIZE, false)));
        disk.wait_for_call();
        disk.stop_and_start();
        disk.wait_for_call();
        assert!(disk.has_answer());
    }
}
