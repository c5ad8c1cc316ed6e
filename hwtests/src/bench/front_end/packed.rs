//! Stands between the front-end of the virtio-driver crate and a back-end, for packed virtqueues.
//!
//! That front-end says that each virtqueue begins at 0. For a packed one this means its second lap,
//! but the front-end uses it from the first lap on. This corrects the message on its way.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// Length of a message's header: request, flags and length of the payload.
const HEADER: usize = 12;

/// The longest payload.
const MAX_PAYLOAD: usize = 4096;

/// The request that says where a vring begins, and its value for a packed one in its first lap.
const SET_VRING_BASE: u32 = 10;
const FIRST_LAP: u32 = 0x8000_8000;

/// A socket for one front-end of the back-end at `socket`.
pub fn between(socket: &Path) -> Result<PathBuf> {
    let path = socket.with_extension("packed");
    // An earlier front-end may have left it.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).context("cannot listen")?;
    let back_end = UnixStream::connect(socket).context("cannot connect")?;
    thread::spawn(move || {
        listener
            .accept()
            .map(|(front_end, _)| relay(front_end, back_end))
    });
    Ok(path)
}

/// Passes messages on until either side leaves.
fn relay(front_end: UnixStream, back_end: UnixStream) {
    let both = (front_end.try_clone(), back_end.try_clone());
    let (Ok(mut answers_to), Ok(mut answers_from)) = both else {
        return;
    };
    thread::spawn(move || {
        let _ = io::copy(&mut answers_from, &mut answers_to);
        let _ = answers_to.shutdown(Shutdown::Both);
    });
    let (mut from, mut to) = (front_end, back_end);
    while let Ok(true) = pass(&mut from, &mut to) {}
    let _ = to.shutdown(Shutdown::Both);
}

/// Passes one message on; false when there is none.
fn pass(from: &mut UnixStream, to: &mut UnixStream) -> io::Result<bool> {
    let mut message = vec![0; HEADER];
    let (received, file) = from.recv_with_fd(&mut message)?;
    if received == 0 {
        return Ok(false);
    }
    from.read_exact(&mut message[received..])?;
    let number = |message: &[u8], at: usize| {
        let bytes = message[at..].first_chunk().copied();
        bytes.map_or(0, u32::from_le_bytes)
    };
    let payload = (number(&message, 8) as usize).min(MAX_PAYLOAD);
    message.resize(HEADER + payload, 0);
    from.read_exact(&mut message[HEADER..])?;
    if number(&message, 0) == SET_VRING_BASE && payload == 8 {
        message[HEADER + 4..].copy_from_slice(&FIRST_LAP.to_le_bytes());
    }
    match file {
        Some(file) => to
            .send_with_fd(message.as_slice(), file.as_raw_fd())
            .map(drop)?,
        None => to.write_all(&message)?,
    }
    Ok(true)
}
