//! Front-ends that kick, but do not make requests.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use virtio::test_utils::RestlessKick;

use super::disk::Disk;
use super::harness::{self, Folder, PATIENCE, Running};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vvu-block");

#[test]
fn a_front_end_whose_kick_stays_readable_is_served_and_takes_little_time() {
    for engine in ["auto", "io_uring", "threads"] {
        let folder = Folder::new();
        let arguments = format!("--sandbox=full --aio {engine} --socket-path vu.sock disk.img");
        let running = Running::start(folder.command(PROGRAM, &arguments));
        running.line();
        let mut disk = Disk::new(UnixStream::connect(folder.path("vu.sock")).unwrap());
        let kick = RestlessKick::new();
        disk.replace_kick(kick.eventfd().clone());
        for requests in 1..=3 {
            // This wait always lasts until its timeout. Meanwhile, a queue that does not back off
            // takes many signals from its kick eventfd.
            let time = Some(Duration::from_millis(200));
            ipc::poll([ipc::Interest::Nothing], time).unwrap();
            assert!(kick.taken() <= 64 * requests, "{}", kick.taken());
            assert_eq!(disk.write(3, 0x5a), 0);
        }
        running.signal(libc::SIGTERM);
        assert_eq!(running.output().status.code(), Some(0));
    }
}

#[test]
fn each_front_end_whose_requests_are_not_seen_gets_one_hint() {
    let folder = Folder::new();
    let mut command = folder.command(PROGRAM, "--sandbox=full --socket-path vu.sock disk.img");
    let (log, stderr) = std::io::pipe().unwrap();
    let running = Running::start({
        command.stderr(stderr);
        command
    });
    running.line();
    let lines = harness::lines(log);
    let is_hint = |line: &String| line.contains("queue 0 was kicked, but its ring is empty");
    let hint = || loop {
        let line = lines.recv_timeout(PATIENCE).ok()?;
        if is_hint(&line) {
            return Some(line);
        }
    };
    for _ in 0..2 {
        let disk = Disk::new(UnixStream::connect(folder.path("vu.sock")).unwrap());
        disk.kick();
        assert!(hint().unwrap().contains("share=on"));
    }
    running.signal(libc::SIGTERM);
    assert!(running.status().success());
    assert_eq!(hint(), None, "the log ends without another hint");
}
