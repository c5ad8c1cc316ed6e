//! Bytes and descriptors that no well-behaved peer sends.

use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ipc::{Interest, Stream, poll};

use super::PATIENCE;

/// Connects to a socket. Reads from it and writes to it give up after a short time.
pub fn connect(socket: &Path) -> Result<UnixStream> {
    let stream = UnixStream::connect(socket).context("cannot connect")?;
    let limit = Some(Duration::from_millis(50));
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)?;
    Ok(stream)
}

/// The bytes of a vhost-user message of version 1.
pub fn vhost_user(request: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let header = [request, 1 | flags, payload.len() as u32].map(u32::to_le_bytes);
    [&header.concat(), payload].concat()
}

/// The flag of a vhost-user message that wants an answer.
pub const NEED_REPLY: u32 = 8;

/// The bytes of a vfio-user command.
pub fn vfio_user(command: u16, payload: &[u8]) -> Vec<u8> {
    command_with(0, command, payload)
}

/// The bytes of a vfio-user command that wants no reply.
pub fn unanswered(command: u16, payload: &[u8]) -> Vec<u8> {
    command_with(0x10, command, payload)
}

fn command_with(flags: u32, command: u16, payload: &[u8]) -> Vec<u8> {
    // The fields are: id and command, size, flags, error.
    let size = 16 + payload.len() as u32;
    let header = [u32::from(command) << 16, size, flags, 0].map(u32::to_le_bytes);
    [&header.concat(), payload].concat()
}

/// The first message of a vfio-user client: VERSION 0.1 without capabilities.
pub fn version() -> Vec<u8> {
    vfio_user(1, &[0, 0, 1, 0, b'{', b'}', 0])
}

/// Sends bytes with descriptors, and waits until the socket takes them.
pub fn send_with(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let stream = Stream::new(stream.try_clone()?)?;
    while stream.send(bytes, fds)? == 0 {
        let [ready] = poll([Interest::writable(&stream)], Some(PATIENCE))?;
        ensure!(ready, "the program does not read its messages");
    }
    Ok(())
}

/// Sends bytes, and drops the answers that have come. False if the program closed the connection.
pub fn exchange(stream: &mut UnixStream, bytes: &[u8]) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    let is_late = |error: &std::io::Error| matches!(error.kind(), TimedOut | WouldBlock);
    match stream.write_all(bytes) {
        Err(error) if !is_late(&error) => return false,
        _ => {}
    }
    match stream.read(&mut [0; 1 << 16]) {
        Ok(count) => count > 0,
        Err(error) => is_late(&error),
    }
}
