//! From the command line to a transport.

use std::error::Error;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType};
use vvu::transport::{SocketTransport, Transport, VvuTransport};
use vvu::vhost_user::Listener;

use crate::args::TransportArguments;

/// A transport through which a front-end can come.
pub struct Opened {
    pub transport: Box<dyn Transport>,
    /// What to call it in front of people.
    pub name: String,
}

/// Opens the transport that was asked for, for a device of so many queues.
pub fn open(arguments: &TransportArguments, queues: u16) -> Result<Opened, Box<dyn Error>> {
    if let Some(address) = &arguments.pci {
        let function = vvu::pci::open(address)?;
        let transport = Box::new(VvuTransport::new(function, queues, arguments.vvu_dialect)?);
        let name = format!("virtio-vhost-user {address}");
        return Ok(Opened { transport, name });
    }
    if let Some(path) = &arguments.socket_path {
        let transport = Box::new(SocketTransport::listening(Listener::bind(path)?));
        let name = format!("vhost-user {}", path.display());
        return Ok(Opened { transport, name });
    }
    let number = arguments.fd.ok_or("no transport was given")?;
    let stream = inherited_socket(number)?.into();
    let transport = Box::new(SocketTransport::connected(stream)?);
    let name = format!("vhost-user file descriptor {number}");
    Ok(Opened { transport, name })
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
