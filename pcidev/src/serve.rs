//! The event loop, which serves one device to one client after another.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
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
/// `stop` is readable. Each client finds the device in its initial state. A client is dropped if
/// the device accesses a missing page of the client's memory.
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
        clients.check(device);
    }
    clients.leave(device.poller());
    device.poller().remove(stop);
    function::disconnect(device);
    Ok(())
}

/// The connected client, and the listener, which is the socket that the next client connects to.
/// The next client waits in the listener's backlog until the connected client has left.
struct Clients<'a> {
    listener: &'a Listener,
    client: Option<Connection>,
    /// The event for which the listener is watched.
    listener_until: Until,
    /// The event for which the client is watched.
    client_until: Until,
}

impl<'a> Clients<'a> {
    fn new(listener: &'a Listener, poller: &Poller) -> io::Result<Self> {
        let until = Until::Readable;
        poller.add(listener, Source::Client, until)?;
        Ok(Self {
            listener,
            client: None,
            listener_until: until,
            client_until: until,
        })
    }

    /// Watches the client's socket, or the listener if no client is connected. Returns the time
    /// until the next deadline. At the deadline, the listener accepts clients again after a pause,
    /// or the client has to have completed its request.
    fn watch(&mut self, poller: &Poller) -> io::Result<Option<Duration>> {
        let Some(client) = &self.client else {
            let rest = self.listener.rest();
            // During its pause, the listener accepts no clients, but its socket stays readable. The
            // event loop would spin if it watched for readability.
            let until = rest.map_or(Until::Readable, |_| Until::HungUp);
            self.watch_listener(until, poller)?;
            return Ok(rest);
        };
        let (until, time_left) = if client.wants_write() {
            (Until::Writable, None)
        } else {
            (Until::Readable, client.time_left())
        };
        if until != self.client_until {
            poller.change(client, Source::Client, until)?;
            self.client_until = until;
        }
        self.watch_listener(Until::HungUp, poller)?;
        Ok(time_left)
    }

    /// Changes the event for which the listener is watched. The listener is never removed from the
    /// poller, because adding it again may fail for lack of memory.
    fn watch_listener(&mut self, until: Until, poller: &Poller) -> io::Result<()> {
        if until != self.listener_until {
            poller.change(self.listener, Source::Client, until)?;
            self.listener_until = until;
        }
        Ok(())
    }

    /// Accepts a client, or serves the connected client. The event loop also calls this method when
    /// a deadline may have passed.
    fn attend(&mut self, device: &mut impl Device) -> io::Result<()> {
        let Some(client) = &mut self.client else {
            return self.accept(device.poller());
        };
        if let Err(error) = serve_client(device, client) {
            report(&error);
            self.drop_client(device);
        }
        Ok(())
    }

    fn accept(&mut self, poller: &Poller) -> io::Result<()> {
        let admitted = match self.listener.accept()? {
            Accepted::Peer(stream) => self.admit(stream, poller),
            Accepted::Nobody => Ok(()),
            Accepted::Later(error) => Err(error),
        };
        if let Err(error) = admitted {
            warn!("cannot accept the next vfio-user client yet: {error}");
            self.listener.begin_rest();
        }
        Ok(())
    }

    fn admit(&mut self, stream: UnixStream, poller: &Poller) -> io::Result<()> {
        let client = Connection::new(stream)?;
        self.client_until = Until::Readable;
        poller.add(&client, Source::Client, self.client_until)?;
        info!("vfio-user client connected");
        self.client = Some(client);
        Ok(())
    }

    /// Drops the client if a signal to one of its eventfds has blocked, or if a page of its memory
    /// was missing.
    fn check(&mut self, device: &mut impl Device) {
        if device.function().blocked.is_set() {
            warn!("vfio-user client is dropped: it makes signals to its eventfds block");
            // This pause limits the delay that a client causes to other peers by connecting again
            // and again.
            self.listener.begin_rest();
            self.drop_client(device);
        } else if let Err(lost) = device.function().dma.check() {
            warn!("vfio-user client is dropped: {lost}");
            self.drop_client(device);
        }
    }

    fn drop_client(&mut self, device: &mut impl Device) {
        if let Some(client) = self.client.take() {
            device.poller().remove(&client);
        }
        function::disconnect(device);
    }

    /// Stops watching the client and the listener.
    fn leave(&self, poller: &Poller) {
        self.client.iter().for_each(|client| poller.remove(client));
        poller.remove(self.listener);
    }
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
