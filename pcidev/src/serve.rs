//! The event loop: one device, one client after the other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tracing::{info, warn};
use vfio_user::server::{Connection, ServerError};
use vhost_user::Listener;

use crate::function::{self, Device};

/// How many of a client's requests are served before others have their turn.
const BATCH: usize = 256;

/// Serves a device to the vfio-user clients that connect to `clients`, one after the other, until
/// `stop` is readable. A client that leaves leaves the device as new; so does the end.
///
/// # Errors
///
/// When the operating system fails, for lack of memory for instance.
pub fn serve(device: &mut impl Device, clients: &Listener, stop: BorrowedFd<'_>) -> io::Result<()> {
    let mut client = None;
    while !wait(device, clients, client.as_ref(), stop)? {
        device.process()?;
        match &mut client {
            None => client = accept(clients)?,
            Some(connection) => {
                if let Err(error) = serve_client(device, connection) {
                    report(&error);
                    client = None;
                    function::disconnect(device);
                }
            }
        }
    }
    function::disconnect(device);
    Ok(())
}

/// Waits for something to do; true when that is to stop.
fn wait(
    device: &impl Device,
    clients: &Listener,
    client: Option<&Connection>,
    stop: BorrowedFd<'_>,
) -> io::Result<bool> {
    // The next client waits in the socket's backlog until the present one is gone.
    let (socket, flags) = match client {
        None => (clients.as_fd(), PollFlags::IN),
        Some(client) if client.wants_write() => (client.as_fd(), PollFlags::OUT),
        Some(client) => (client.as_fd(), PollFlags::IN),
    };
    let mut fds = [
        PollFd::from_borrowed_fd(stop, PollFlags::IN),
        PollFd::from_borrowed_fd(device.events(), PollFlags::IN),
        PollFd::from_borrowed_fd(socket, flags),
    ];
    match poll(&mut fds, None) {
        Ok(_) => Ok(!fds[0].revents().is_empty()),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn accept(clients: &Listener) -> io::Result<Option<Connection>> {
    let Some(stream) = clients.accept()? else {
        return Ok(None);
    };
    info!("vfio-user client connected");
    Connection::new(stream).map(Some)
}

fn serve_client(device: &mut impl Device, client: &mut Connection) -> Result<(), ServerError> {
    for _ in 0..BATCH {
        let Some(request) = client.next()? else {
            return Ok(());
        };
        function::answer(device, client, request)?;
    }
    Ok(())
}

fn report(error: &ServerError) {
    match error.is_closed() {
        true => info!("vfio-user client left"),
        false => warn!("{error}"),
    }
}
