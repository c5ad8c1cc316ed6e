//! The event loop: one device, one client after the other.

use std::io;
use std::os::fd::BorrowedFd;

use ipc::{Accepted, Interest, Listener, poll};
use tracing::{info, warn};
use vfio_user::server::{Connection, ServerError};
use vhost_user::WithCauses;

use crate::function::{self, Device};

/// How many requests of a client are served before the device has its turn.
const BATCH: usize = 256;

/// Serves a device to the vfio-user clients that connect to `clients`, one after the other, until
/// `stop` is readable. The next client finds the device as new.
///
/// # Errors
///
/// When the operating system fails, for lack of memory for instance.
pub fn serve(device: &mut impl Device, clients: &Listener, stop: BorrowedFd<'_>) -> io::Result<()> {
    let mut client = None;
    loop {
        let ready = wait(device, clients, client.as_ref(), stop)?;
        if ready.stop {
            break;
        }
        if ready.device {
            device.process()?;
        }
        if !ready.client {
            continue;
        }
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

/// Who may need attention. A client or device that has a deadline always may.
struct Ready {
    stop: bool,
    device: bool,
    /// The client, or the next one when there is none.
    client: bool,
}

fn wait(
    device: &impl Device,
    clients: &Listener,
    client: Option<&Connection>,
    stop: BorrowedFd<'_>,
) -> io::Result<Ready> {
    // The next client waits in the socket's backlog until the present one is gone.
    let (socket, client_time) = match client {
        None => clients.interest(),
        Some(client) if client.wants_write() => (Interest::writable(client), None),
        Some(client) => (Interest::readable(client), client.time_left()),
    };
    let events = Interest::Readable(device.events());
    let device_time = device.time_left();
    let timeout = [client_time, device_time].into_iter().flatten().min();
    let [stop, device, client] = poll([Interest::Readable(stop), events, socket], timeout)?;
    Ok(Ready {
        stop,
        device: device || device_time.is_some(),
        client: client || client_time.is_some(),
    })
}

fn accept(clients: &Listener) -> io::Result<Option<Connection>> {
    let stream = match clients.accept()? {
        Accepted::Peer(stream) => stream,
        Accepted::Nobody => return Ok(None),
        Accepted::Later(error) => {
            warn!("cannot accept the next vfio-user client yet: {error}");
            return Ok(None);
        }
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
    if error.is_closed() {
        info!("vfio-user client left");
    } else {
        warn!("vfio-user client is dropped: {}", WithCauses(error));
    }
}
