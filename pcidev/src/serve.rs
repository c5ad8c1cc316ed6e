//! The event loop, which serves one device to one client after another.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use ipc::{Accepted, Listener};
use tracing::{info, warn};
use vfio_user::server::{Connection, ServerError};
use vhost_user::WithCauses;

use crate::function::{self, Device};
use crate::poller::{Events, Poller, Source, Until};

/// The maximum number of a client's requests that are served before the device's events are
/// handled.
const BATCH: usize = 256;

/// Serves a device to the vfio-user clients that connect to `clients`, one after the other, until
/// `stop` is readable. Each client finds the device in its initial state. A client whose memory is
/// lost is dropped.
///
/// # Errors
///
/// When the operating system fails, for instance for lack of memory.
pub fn serve(device: &mut impl Device, clients: &Listener, stop: BorrowedFd<'_>) -> io::Result<()> {
    device.poller().add(stop, Source::Stop, Until::Readable)?;
    let mut clients = Clients::new(clients, device.poller())?;
    let mut events = Events::default();
    loop {
        let client_time = clients.watch(device.poller())?;
        let device_time = device.time_left();
        let timeout = [client_time, device_time].into_iter().flatten().min();
        device.poller().wait(&mut events, timeout)?;
        if events.contain(Source::Stop) {
            break;
        }
        for number in events.of_device() {
            device.process(number)?;
        }
        if device_time.is_some() {
            device.keep_deadlines();
        }
        if events.contain(Source::Client) || client_time.is_some() {
            clients.attend(device)?;
        }
        clients.check_memory(device)?;
    }
    clients.leave(device.poller());
    device.poller().remove(stop);
    function::disconnect(device);
    Ok(())
}

/// The connected client, and the listener, which is the socket that the next client connects to.
/// Exactly one of the two is watched. The next client waits in the listener's backlog until the
/// connected client has left.
struct Clients<'a> {
    listener: &'a Listener,
    client: Option<Connection>,
    /// The event for which the watched socket is watched.
    until: Until,
}

impl<'a> Clients<'a> {
    fn new(listener: &'a Listener, poller: &Poller) -> io::Result<Self> {
        let until = Until::Readable;
        poller.add(listener, Source::Client, until)?;
        Ok(Self {
            listener,
            client: None,
            until,
        })
    }

    fn socket(&self) -> BorrowedFd<'_> {
        match &self.client {
            None => self.listener.as_fd(),
            Some(client) => client.as_fd(),
        }
    }

    /// Watches the client's socket, or the listener if no client is connected. Returns the time
    /// until the next deadline, at which the client has to complete its request, or the listener
    /// accepts clients again after an error.
    fn watch(&mut self, poller: &Poller) -> io::Result<Option<Duration>> {
        let (until, time_left) = match &self.client {
            None => match self.listener.rest() {
                None => (Until::Readable, None),
                // After an error, the listener accepts no clients for some time. Its socket stays
                // readable in this time, so the event loop would spin if it watched for
                // readability.
                rest => (Until::HungUp, rest),
            },
            Some(client) if client.wants_write() => (Until::Writable, None),
            Some(client) => (Until::Readable, client.time_left()),
        };
        if until != self.until {
            poller.change(self.socket(), Source::Client, until)?;
            self.until = until;
        }
        Ok(time_left)
    }

    /// Accepts a client, or serves the connected client. The event loop also calls this method when
    /// a deadline may have passed.
    fn attend(&mut self, device: &mut impl Device) -> io::Result<()> {
        let Some(client) = &mut self.client else {
            let client = accept(self.listener)?;
            if client.is_some() {
                self.replace(client, device.poller())?;
            }
            return Ok(());
        };
        if let Err(error) = serve_client(device, client) {
            report(&error);
            self.disconnect(device)?;
        }
        Ok(())
    }

    /// Drops a client whose memory is lost.
    fn check_memory(&mut self, device: &mut impl Device) -> io::Result<()> {
        let Err(lost) = device.function().dma.check() else {
            return Ok(());
        };
        warn!("vfio-user client is dropped: {lost}");
        self.disconnect(device)
    }

    fn disconnect(&mut self, device: &mut impl Device) -> io::Result<()> {
        self.replace(None, device.poller())?;
        function::disconnect(device);
        Ok(())
    }

    fn replace(&mut self, client: Option<Connection>, poller: &Poller) -> io::Result<()> {
        self.leave(poller);
        (self.client, self.until) = (client, Until::Readable);
        poller.add(self.socket(), Source::Client, self.until)
    }

    /// Stops watching the client or the listener.
    fn leave(&self, poller: &Poller) {
        poller.remove(self.socket());
    }
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
