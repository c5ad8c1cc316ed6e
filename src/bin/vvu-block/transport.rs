//! From the command line to a transport.

use std::error::Error;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType};
use vvu::transport::{SocketTransport, Transport};
use vvu::vhost_user::Listener;

use crate::args::TransportArguments;

/// How many queues are offered where nothing limits them. A queue that no front-end uses costs
/// nothing, and a front-end may want one for each of its processors.
const DEFAULT_QUEUES: u16 = 16;

/// A transport through which a front-end can come, with what it determines.
pub struct Opened {
    pub transport: Box<dyn Transport>,
    /// How many queues to offer.
    pub queues: u16,
    /// What to call it in front of people.
    pub name: String,
}

/// Opens the transport that was asked for.
pub fn open(arguments: &TransportArguments, queues: Option<u16>) -> Result<Opened, Box<dyn Error>> {
    if let Some(address) = &arguments.pci {
        return open_pci(address, queues);
    }
    let queues = queues.unwrap_or(DEFAULT_QUEUES);
    if let Some(path) = &arguments.socket_path {
        let transport = Box::new(SocketTransport::listening(Listener::bind(path)?));
        let name = format!("vhost-user {}", path.display());
        return Ok(Opened {
            transport,
            queues,
            name,
        });
    }
    let number = arguments.fd.ok_or("no transport was given")?;
    let stream = inherited_socket(number)?.into();
    let transport = Box::new(SocketTransport::connected(stream)?);
    Ok(Opened {
        transport,
        queues,
        name: format!("vhost-user file descriptor {number}"),
    })
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

fn open_pci(_address: &str, _queues: Option<u16>) -> Result<Opened, Box<dyn Error>> {
    Err("PCI functions are not driven yet".into())
}
