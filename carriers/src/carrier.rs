//! A carrier that is open.

use std::os::fd::BorrowedFd;
use std::path::Path;

use ipc::{Inherited, Listener, SocketPath};
use pcidev::VirtioFunction;
use policies::TransportName;
use vhost_user::{Inspect, SocketTransport, Transport};
use virtio::Runner;
use vvu::VvuTransport;
use vvu::driver::Dialect;

use crate::{CarrierArguments, CarrierError};

/// A carrier by which drivers can reach a device from now on.
pub struct Carrier {
    protocol: Protocol,
    name: String,
    transport_name: TransportName,
    path: Option<SocketPath>,
}

/// What a carrier speaks.
enum Protocol {
    /// The messages of a vhost-user front-end.
    VhostUser(Box<dyn Transport>),
    /// The registers of a PCI function, for the clients that connect.
    VirtioPci(Listener),
}

impl Carrier {
    /// Opens the carrier that the arguments name, for a device that has this number of queues.
    /// `inspector` looks at the memory of front-ends that connect to a socket.
    ///
    /// # Errors
    ///
    /// [`CarrierError`] for an address, path or descriptor that cannot be used.
    pub fn open(
        arguments: &CarrierArguments,
        queues: u16,
        inspector: impl Inspect + 'static,
    ) -> Result<Self, CarrierError> {
        if let Some(address) = &arguments.pci {
            return Self::vvu(address, queues, arguments.vvu_dialect);
        }
        if let Some(path) = &arguments.socket_path {
            return Self::vhost_user_socket(path, inspector);
        }
        if let Some(path) = &arguments.virtio_pci_socket {
            return Self::virtio_pci(path);
        }
        let number = arguments.fd.ok_or(CarrierError::NotNamed)?;
        Self::inherited(number, inspector)
    }

    fn vvu(address: &str, queues: u16, dialect: Option<Dialect>) -> Result<Self, CarrierError> {
        let function = vvu::driver::open(address)?;
        let transport = VvuTransport::new(function, queues, dialect)?;
        let transport_name = if vvu::pci::is_vfio_user(address) {
            TransportName::VvuVfioUser
        } else {
            TransportName::Vvu
        };
        Ok(Self {
            protocol: Protocol::VhostUser(Box::new(transport)),
            name: format!("virtio-vhost-user {address}"),
            transport_name,
            path: None,
        })
    }

    fn vhost_user_socket(
        path: &Path,
        inspector: impl Inspect + 'static,
    ) -> Result<Self, CarrierError> {
        let listener = Listener::bind(path)?;
        let socket_path = listener.path().cloned();
        let transport = SocketTransport::listening(listener).inspected_by(inspector);
        Ok(Self {
            protocol: Protocol::VhostUser(Box::new(transport)),
            name: format!("vhost-user {}", path.display()),
            transport_name: TransportName::VhostUser,
            path: socket_path,
        })
    }

    fn inherited(number: i32, inspector: impl Inspect + 'static) -> Result<Self, CarrierError> {
        // SAFETY: the program's own descriptors are closed on exec. One that is not comes from the
        // process that started the program, and the command line alone gives its number.
        let socket = unsafe { Inherited::take_over(number) }?;
        let transport = match socket {
            Inherited::Connected(stream) => SocketTransport::connected(stream)?,
            Inherited::Listening(listener) => SocketTransport::listening(listener),
        };
        Ok(Self {
            protocol: Protocol::VhostUser(Box::new(transport.inspected_by(inspector))),
            name: format!("vhost-user file descriptor {number}"),
            transport_name: TransportName::VhostUser,
            path: None,
        })
    }

    fn virtio_pci(path: &Path) -> Result<Self, CarrierError> {
        let clients = Listener::bind(path)?;
        Ok(Self {
            name: format!("virtio-pci {}", path.display()),
            transport_name: TransportName::Pci,
            path: clients.path().cloned(),
            protocol: Protocol::VirtioPci(clients),
        })
    }

    /// What to call it in front of people: `vhost-user /run/vu.sock`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the policies call it.
    pub fn transport_name(&self) -> TransportName {
        self.transport_name
    }

    /// The socket that has to be removed at the end, also by a process that sees no files: then a
    /// supervisor has to do it.
    pub fn socket_path(&self) -> Option<&SocketPath> {
        self.path.as_ref()
    }

    /// Serves the device of `runner` until `stop` is readable or no further driver can come.
    ///
    /// # Errors
    ///
    /// [`CarrierError`] when the carrier cannot be used any more.
    pub fn serve(self, mut runner: Runner, stop: BorrowedFd<'_>) -> Result<(), CarrierError> {
        match self.protocol {
            Protocol::VhostUser(mut transport) => {
                vhost_user::session::serve(transport.as_mut(), &mut runner, stop)?;
            }
            Protocol::VirtioPci(clients) => {
                let mut function = VirtioFunction::new(runner)?;
                pcidev::serve(&mut function, &clients, stop)?;
            }
        }
        Ok(())
    }
}
