//! From the command line to a way on which the device is served.

use std::error::Error;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use ipc::{Listener, SocketPath};
use pcidev::VirtioFunction;
use policies::TransportName;
use rustix::net::{AddressFamily, SocketType};
use vhost_user::{SocketTransport, Transport};
use virtio::Runner;
use vvu::VvuTransport;
use vvu_block::jail::Inspector;

use crate::args::TransportArguments;

/// How a device is carried to its driver.
enum Carrier {
    /// By the messages of a vhost-user front-end.
    VhostUser(Box<dyn Transport>),
    /// By a PCI function, for the clients that connect here.
    VirtioPci(Listener),
}

/// A carrier whose driver can come.
pub struct Opened {
    carrier: Carrier,
    /// What to call it in front of people.
    pub name: String,
    /// What its policies call it.
    pub transport_name: TransportName,
    /// Sockets that are to be gone at the end.
    pub paths: Vec<SocketPath>,
}

impl Opened {
    fn new(
        transport: impl Transport + 'static,
        name: String,
        transport_name: TransportName,
    ) -> Self {
        Self {
            carrier: Carrier::VhostUser(Box::new(transport)),
            name,
            transport_name,
            paths: Vec::new(),
        }
    }

    /// Serves the device of `runner` until `stop` is readable, or nobody can come any more.
    pub fn serve(self, mut runner: Runner, stop: BorrowedFd<'_>) -> Result<(), Box<dyn Error>> {
        match self.carrier {
            Carrier::VhostUser(mut transport) => {
                vhost_user::session::serve(transport.as_mut(), &mut runner, stop)?;
            }
            Carrier::VirtioPci(clients) => {
                let mut function = VirtioFunction::new(runner)?;
                pcidev::serve(&mut function, &clients, stop)?;
            }
        }
        Ok(())
    }
}

/// Opens the way that was asked for, for a device of so many queues.
pub fn open(
    arguments: &TransportArguments,
    queues: u16,
    inspector: Inspector,
) -> Result<Opened, Box<dyn Error>> {
    if let Some(address) = &arguments.pci {
        let function = vvu::driver::open(address)?;
        let transport = VvuTransport::new(function, queues, arguments.vvu_dialect)?;
        let name = format!("virtio-vhost-user {address}");
        let transport_name = if vvu::pci::is_vfio_user(address) {
            TransportName::VvuVfioUser
        } else {
            TransportName::Vvu
        };
        return Ok(Opened::new(transport, name, transport_name));
    }
    if let Some(path) = &arguments.socket_path {
        let listener = Listener::bind(path)?;
        let paths = listener.path().into_iter().cloned().collect();
        let transport = SocketTransport::listening(listener).inspected_by(inspector);
        let opened = Opened::new(
            transport,
            format!("vhost-user {}", path.display()),
            TransportName::VhostUser,
        );
        return Ok(Opened { paths, ..opened });
    }
    if let Some(path) = &arguments.virtio_pci_socket {
        let clients = Listener::bind(path)?;
        return Ok(Opened {
            name: format!("virtio-pci {}", path.display()),
            transport_name: TransportName::Pci,
            paths: clients.path().into_iter().cloned().collect(),
            carrier: Carrier::VirtioPci(clients),
        });
    }
    let number = arguments.fd.ok_or("no transport was given")?;
    let transport = SocketTransport::connected(inherited_socket(number)?.into())?;
    let transport = transport.inspected_by(inspector);
    let name = format!("vhost-user file descriptor {number}");
    Ok(Opened::new(transport, name, TransportName::VhostUser))
}

/// Takes over a connected Unix stream socket that was inherited under this number.
fn inherited_socket(number: i32) -> Result<OwnedFd, String> {
    let wrong = format!("--fd {number}: is not an inherited, connected Unix stream socket");
    // SAFETY: the descriptor is only asked about here; one that is not open answers with an error.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let domain = rustix::net::sockopt::socket_domain(fd).map_err(|_| wrong.clone())?;
    let kind = rustix::net::sockopt::socket_type(fd).map_err(|_| wrong.clone())?;
    let connected = rustix::net::getpeername(fd).is_ok();
    if domain != AddressFamily::UNIX || kind != SocketType::STREAM || !connected {
        return Err(wrong);
    }
    // SAFETY: it is open, was inherited for this purpose, and nothing else in this program uses it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
