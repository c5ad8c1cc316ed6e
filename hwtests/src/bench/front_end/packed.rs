//! Relays messages between the front-end of the virtio-driver crate and a back-end, and corrects
//! them for packed virtqueues.
//!
//! In SET_VRING_BASE, the front-end sends 0 as the start of each virtqueue. For a packed virtqueue,
//! the start consists of an index and a wrap counter, so 0 means that the wrap counter is 0. The
//! wrap counter is 1 in the first pass through the ring, and 0 in the second pass. The front-end
//! begins with the first pass, so this module replaces 0 by the start of the first pass.

use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result};
use ipc::{Interest, poll};
use vhost_user::{Code, Connection, VringState};

/// The start of the first pass through a packed virtqueue's ring. The index is 0 and the wrap
/// counter is 1, both for available and for used descriptors.
const FIRST_LAP: u32 = 0x8000_8000;

/// Makes a socket for one front-end, and returns the path of the socket. A thread relays messages
/// between the front-end and the back-end at `socket`.
pub fn between(socket: &Path) -> Result<PathBuf> {
    let path = socket.with_extension("packed");
    // The socket of an earlier front-end may still exist at this path, so it is removed.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).context("cannot listen")?;
    let back_end = UnixStream::connect(socket).context("cannot connect")?;
    let back_end = Connection::new(back_end)?;
    thread::spawn(move || {
        let (front_end, _) = listener.accept()?;
        relay(Connection::new(front_end)?, back_end)
    });
    Ok(path)
}

/// Passes messages on in both directions until either side closes its connection.
fn relay(mut front_end: Connection, mut back_end: Connection) -> Result<()> {
    loop {
        let both = [
            Interest::readable(&front_end),
            Interest::readable(&back_end),
        ];
        poll(both, None)?;
        pass(&mut front_end, &mut back_end)?;
        pass(&mut back_end, &mut front_end)?;
    }
}

/// Sends all messages that have arrived at `from` to `to`. In SET_VRING_BASE requests, replaces the
/// start by [`FIRST_LAP`].
fn pass(from: &mut Connection, to: &mut Connection) -> Result<()> {
    while let Some((mut message, fds)) = from.recv()? {
        let is_base = message.head.request == Code::SET_VRING_BASE.number();
        let is_request = is_base && !message.head.is_reply();
        if is_request && let Ok(state) = VringState::decode(&message.payload) {
            let num = FIRST_LAP;
            message.payload = VringState { num, ..state }.encode();
        }
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        to.send(&message, &fds)?;
    }
    Ok(())
}
