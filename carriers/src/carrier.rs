//! An open carrier. A carrier (transport) is a way by which drivers reach a device.

use std::os::fd::BorrowedFd;
use std::path::Path;

use ipc::{Inherited, Listener, SocketPath};
use pcidev::VirtioFunction;
use policies::TransportName;
use vhost_user::{SocketTransport, Transport};
use virtio::Runner;
use virtio::memory::MemoryFiles;
use vvu::VvuTransport;

use crate::{CarrierArguments, CarrierError};

/// An open carrier, by which drivers can reach a device.
pub struct Carrier {
    protocol: Protocol,
    name: String,
    transport_name: TransportName,
    path: Option<SocketPath>,
}

/// The protocol of a carrier.
enum Protocol {
    /// The vhost-user protocol. The transport carries the messages of front-ends.
    VhostUser(Box<dyn Transport>),
    /// The vfio-user protocol. Clients connect to the listener and access a virtio PCI function.
    VirtioPci(Listener, MemoryFiles),
}

impl Carrier {
    /// Opens the carrier that the arguments name, for a device with `queues` queues.
    ///
    /// # Errors
    ///
    /// [`CarrierError`] for an address, path or descriptor that cannot be used.
    pub fn open(arguments: &CarrierArguments, queues: u16) -> Result<Self, CarrierError> {
        if let Some(address) = &arguments.pci {
            return Self::vvu(address, queues, arguments);
        }
        if let Some(path) = &arguments.socket_path {
            return Self::vhost_user_socket(path, arguments);
        }
        if let Some(path) = &arguments.virtio_pci_socket {
            return Self::virtio_pci(path, arguments);
        }
        let number = arguments.fd.ok_or(CarrierError::NotNamed)?;
        Self::inherited(number, arguments)
    }

    fn vvu(address: &str, queues: u16, arguments: &CarrierArguments) -> Result<Self, CarrierError> {
        let (files, dialect) = (arguments.memory_files.into(), arguments.vvu_dialect);
        let function = vvu::driver::open(address, files)?;
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

    fn vhost_user_socket(path: &Path, arguments: &CarrierArguments) -> Result<Self, CarrierError> {
        let listener = Listener::bind_for(path, arguments.sockets.into())?;
        let socket_path = listener.path().cloned();
        let transport = SocketTransport::listening(listener);
        let transport = transport.accepting(arguments.memory_files.into());
        Ok(Self {
            protocol: Protocol::VhostUser(Box::new(transport)),
            name: format!("vhost-user {}", path.display()),
            transport_name: TransportName::VhostUser,
            path: socket_path,
        })
    }

    fn inherited(number: i32, arguments: &CarrierArguments) -> Result<Self, CarrierError> {
        // SAFETY: all descriptors that the program opens itself are closed on exec. A descriptor
        // that is not closed on exec was inherited from the process that started the program. The
        // program knows an inherited descriptor only by its number on the command line, so only
        // this call uses the descriptor.
        let socket = unsafe { Inherited::take_over(number) }?;
        let transport = match socket {
            Inherited::Connected(stream) => SocketTransport::connected(stream)?,
            Inherited::Listening(listener) => SocketTransport::listening(listener),
        };
        let transport = transport.accepting(arguments.memory_files.into());
        Ok(Self {
            protocol: Protocol::VhostUser(Box::new(transport)),
            name: format!("vhost-user file descriptor {number}"),
            transport_name: TransportName::VhostUser,
            path: None,
        })
    }

    fn virtio_pci(path: &Path, arguments: &CarrierArguments) -> Result<Self, CarrierError> {
        let clients = Listener::bind_for(path, arguments.sockets.into())?;
        Ok(Self {
            name: format!("virtio-pci {}", path.display()),
            transport_name: TransportName::Pci,
            path: clients.path().cloned(),
            protocol: Protocol::VirtioPci(clients, arguments.memory_files.into()),
        })
    }

    /// The name of the carrier in messages to the user, for example `vhost-user /run/vu.sock`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the carrier in the policies of the jail.
    pub fn transport_name(&self) -> TransportName {
        self.transport_name
    }

    /// The path of the socket that has to be removed when the program ends. If a jail hides the
    /// file system from the serving process, a supervisor has to remove the socket. `None` if the
    /// carrier has not created a socket.
    pub fn socket_path(&self) -> Option<&SocketPath> {
        self.path.as_ref()
    }

    /// Serves the device of `runner` until `stop` is readable or no further driver can connect.
    ///
    /// # Errors
    ///
    /// [`CarrierError`] when the carrier cannot be used any more.
    pub fn serve(self, mut runner: Runner, stop: BorrowedFd<'_>) -> Result<(), CarrierError> {
        match self.protocol {
            Protocol::VhostUser(mut transport) => {
                vhost_user::session::serve(transport.as_mut(), &mut runner, stop)?;
            }
            Protocol::VirtioPci(clients, files) => {
                let mut function = VirtioFunction::new(runner)?.accepting(files);
                pcidev::serve(&mut function, &clients, stop)?;
            }
        }
        Ok(())
    }
}
