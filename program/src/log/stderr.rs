//! Writes to stderr, but never waits for the reader of stderr.
//!
//! Stderr may be a pipe, a socket or a terminal whose reader has stopped. The program must not set
//! O_NONBLOCK for stderr, because the flag would also apply to all other processes that share
//! stderr.

use std::fmt::Arguments;
use std::io::{self, IoSlice, IsTerminal};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipc::{Interest, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::{Errno, ReadWriteFlags, pwritev2, write};
use rustix::stdio::{dup2_stderr, stderr};

/// The maximum number of bytes that a pipe accepts either completely or not at all (PIPE_BUF).
const AT_ONCE: usize = 4096;

/// The number of dropped lines that have not been reported yet.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Writes a line, or drops the line if stderr has no room for it. Once stderr has room again, a
/// report of the number of dropped lines is written before the next line.
pub fn write_line(line: Arguments<'_>) {
    let lost = LOST.swap(0, Ordering::Relaxed);
    if lost > 0
        && !write_text(format!("{lost} log lines were lost, because stderr was full\n").as_bytes())
    {
        LOST.fetch_add(lost + 1, Ordering::Relaxed);
    } else if !write_text(format!("{line}\n").as_bytes()) {
        LOST.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes the part of the text for which stderr has room. Returns true if this is the whole text. A
/// signal handler may call this function.
pub fn write_text(text: &[u8]) -> bool {
    write_to(stderr(), text)
}

fn write_to(stderr: BorrowedFd<'_>, mut text: &[u8]) -> bool {
    while !text.is_empty() {
        let part = &text[..text.len().min(AT_ONCE)];
        match write_now(stderr, part) {
            Ok(0) | Err(_) => return false,
            Ok(written) => text = &text[written..],
        }
    }
    true
}

fn write_now(stderr: BorrowedFd<'_>, part: &[u8]) -> rustix::io::Result<usize> {
    // With this offset, pwritev2(2) writes at the current position, as writev(2) does.
    const NO_OFFSET: u64 = u64::MAX;
    match pwritev2(
        stderr,
        &[IoSlice::new(part)],
        NO_OFFSET,
        ReadWriteFlags::NOWAIT,
    ) {
        // Terminals do not support RWF_NOWAIT, and pipes and sockets support it only from Linux 6.4
        // on. If RWF_NOWAIT is not supported, the code first asks whether stderr has room. If a
        // pipe or a socket has any room, it has room for this part, unless another process fills
        // the room first.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) if has_room(stderr) => write(stderr, part),
        // The write to a regular file would wait for the storage. This wait is acceptable, because
        // no peer and no reader of the log can make it longer.
        Err(Errno::AGAIN) if is_file(stderr) => write(stderr, part),
        result => result,
    }
}

fn has_room(stderr: BorrowedFd<'_>) -> bool {
    let room = poll([Interest::Writable(stderr)], Some(Duration::ZERO));
    room.is_ok_and(|[room]| room)
}

fn is_file(stderr: BorrowedFd<'_>) -> bool {
    let status = fstat(stderr);
    status.is_ok_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::RegularFile)
}

/// If stderr is a terminal, opens the terminal a second time, with O_NONBLOCK, and replaces stderr
/// by the new descriptor. Without O_NONBLOCK, a write to a stopped terminal would block if the
/// terminal had room only for a part of the line.
pub fn own_terminal() {
    if !io::stderr().is_terminal() {
        return;
    }
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    // Stderr stays unchanged if the terminal belongs to another user, or if /proc is missing.
    if let Ok(terminal) = open("/proc/self/fd/2", flags, Mode::empty()) {
        let _ = dup2_stderr(terminal);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Writes to a descriptor, whose O_NONBLOCK is clear, until it accepts no more bytes. Returns
    /// the number of accepted bytes.
    fn fill(stderr: BorrowedFd<'_>) -> usize {
        let mut taken = 0;
        while write_to(stderr, &[b'x'; 64]) {
            taken += 64;
            assert!(taken < 100 << 20, "it never fills");
        }
        taken
    }

    #[test]
    fn a_full_pipe_takes_no_more_and_does_not_block() {
        let (mut reader, writer) = io::pipe().unwrap();
        let taken = fill(writer.as_fd());
        assert!(!write_to(writer.as_fd(), b"lost\n"));
        reader.read_exact(&mut vec![0; taken]).unwrap();
        assert!(write_to(writer.as_fd(), b"seen\n"));
        let mut line = [0; 5];
        reader.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"seen\n");
    }

    #[test]
    fn a_full_socket_takes_no_more_and_does_not_block() {
        let (_reader, writer) = UnixStream::pair().unwrap();
        fill(writer.as_fd());
        assert!(!write_to(writer.as_fd(), b"lost\n"));
    }

    #[test]
    fn a_file_takes_long_texts_whole_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let file = fs::File::create(&path).unwrap();
        let text: Vec<u8> = (0..20_000u32).map(|at| at as u8).collect();
        assert!(write_to(file.as_fd(), &text));
        assert!(write_to(file.as_fd(), b"end"));
        assert_eq!(fs::read(&path).unwrap(), [&text[..], b"end"].concat());
    }
}
