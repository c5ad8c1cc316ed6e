//! Stands between the front-end of the virtio-driver crate and a back-end, for packed virtqueues.
//!
//! That front-end says that each virtqueue begins at 0. For a packed one this means its second lap,
//! but the front-end uses it from the first lap on. This corrects the message on its way.

use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result};
use ipc::{Interest, poll};
use vhost_user::{Code, Connection, VringState};

/// Where a packed virtqueue begins in its first lap.
const FIRST_LAP: u32 = 0x8000_8000;

/// A socket for one front-end of the back-end at `socket`.
pub fn between(socket: &Path) -> Result<PathBuf> {
    let path = socket.with_extension("packed");
    // An earlier front-end may have left it.
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

/// Passes messages on until either side leaves.
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

/// Passes on what there is.
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
