//! The log of the programs.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::ptr::null_mut;

use super::disk::Disk;
use super::harness::{Folder, Running};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vvu-block");

/// A pipe that is so full that a write to it blocks, and the number of bytes in the pipe.
fn full_pipe() -> (PipeReader, PipeWriter, usize) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let size = rustix::pipe::fcntl_getpipe_size(&writer).unwrap();
    writer.write_all(&vec![b'.'; size]).unwrap();
    (reader, writer, size)
}

#[test]
fn a_program_whose_stderr_is_full_serves_and_stops() {
    let folder = Folder::new();
    let (mut reader, writer, size) = full_pipe();
    let arguments = "--sandbox=full --log-level debug --socket-path vu.sock disk.img";
    let mut command = folder.command(PROGRAM, arguments);
    command.stderr(Stdio::from(writer));
    let running = Running::start(command);
    assert_eq!(running.line(), "ready: vhost-user vu.sock");
    let connect = || UnixStream::connect(folder.path("vu.sock")).unwrap();
    for round in 1..=3 {
        // These bytes are not a valid message, so the program logs an error and drops the
        // front-end.
        connect().write_all(&[0xff; 64]).unwrap();
        assert_eq!(Disk::new(connect()).write(round, 0x77), 0);
    }
    // When the pipe has room again, the program first logs how many lines it could not write.
    reader.read_exact(&mut vec![0; size]).unwrap();
    assert_eq!(Disk::new(connect()).write(4, 0x77), 0);
    running.signal(libc::SIGTERM);
    assert_eq!(running.status().code(), Some(0));
    let mut log = String::new();
    reader.read_to_string(&mut log).unwrap();
    let first = log.lines().next().unwrap();
    assert!(
        first.ends_with(" log lines were lost, because stderr was full"),
        "{log}"
    );
}

#[test]
fn a_peer_that_connects_without_end_causes_few_lines() {
    let folder = Folder::new();
    let path = folder.path("stderr");
    let mut command = folder.command(PROGRAM, "--socket-path vu.sock disk.img");
    command.stderr(Stdio::from(File::create(&path).unwrap()));
    let running = Running::start(command);
    running.line();
    for _ in 0..1000 {
        let mut stream = UnixStream::connect(folder.path("vu.sock")).unwrap();
        stream.write_all(&[0xff; 64]).unwrap();
        // Wait until the program drops the front-end. The read fails if the program drops the
        // front-end before it has read all bytes.
        let _ = stream.read(&mut [0]);
    }
    running.signal(libc::SIGTERM);
    assert_eq!(running.status().code(), Some(0));
    let log = std::fs::read_to_string(&path).unwrap();
    assert!(log.contains(" more messages like this left out: "), "{log}");
    assert!(log.lines().count() < 100, "{log}");
}

/// A terminal that has stopped: nobody reads its other end any more. It has room for a few lines
/// and a part of one.
fn stopped_terminal() -> (File, File) {
    let (mut other_end, mut terminal) = (-1, -1);
    // SAFETY: the kernel writes two descriptors. The name and the settings may be null.
    let opened = unsafe {
        libc::openpty(
            &mut other_end,
            &mut terminal,
            null_mut(),
            null_mut(),
            null_mut(),
        )
    };
    assert_eq!(opened, 0);
    // SAFETY: openpty has just opened both descriptors, so they have no other owner.
    let mut pair = unsafe { (File::from_raw_fd(other_end), File::from_raw_fd(terminal)) };
    rustix::io::ioctl_fionbio(&pair.1, true).unwrap();
    while pair.1.write(b"a line\n").is_ok() {}
    rustix::io::ioctl_fionbio(&pair.1, false).unwrap();
    pair.0.read_exact(&mut [0; 64]).unwrap();
    pair
}

#[test]
fn a_program_on_a_stopped_terminal_serves_and_stops() {
    let folder = Folder::new();
    let (_other_end, terminal) = stopped_terminal();
    let arguments = "--sandbox=full --log-level debug --socket-path vu.sock disk.img";
    let mut command = folder.command(PROGRAM, arguments);
    command.stderr(Stdio::from(terminal.try_clone().unwrap()));
    let running = Running::start(command);
    running.line();
    let connect = || UnixStream::connect(folder.path("vu.sock")).unwrap();
    connect().write_all(&[0xff; 64]).unwrap();
    assert_eq!(Disk::new(connect()).write(1, 0x77), 0);
    running.signal(libc::SIGTERM);
    assert_eq!(running.status().code(), Some(0));
    let flags = rustix::fs::fcntl_getfl(&terminal).unwrap();
    assert!(
        !flags.contains(rustix::fs::OFlags::NONBLOCK),
        "others write to the terminal as before"
    );
}
