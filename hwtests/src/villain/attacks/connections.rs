//! Many connections and many descriptors.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use anyhow::Result;
use ipc::SharedEventFd;

use crate::villain::attack::{Attack, Siege};
use crate::villain::messages::{NEED_REPLY, connect, send_with, version, vfio_user, vhost_user};
use crate::villain::repeat::Repeat;
use crate::villain::target::Target;
use crate::villain::victim::Victim;

pub const LIST: &[Attack] = &[
    Attack::new(Target::Socket, "hundreds of connections", crowd),
    Attack::new(Target::ProxyByFrontEnd, "hundreds of connections", crowd),
    Attack::new(Target::Function, "hundreds of connections", crowd),
    Attack::new(Target::ProxyByClient, "hundreds of connections", crowd),
    Attack::new(Target::Socket, "messages with 253 descriptors", descriptors).busy(),
    Attack::new(
        Target::ProxyByFrontEnd,
        "messages with 253 descriptors",
        descriptors,
    )
    .busy(),
    Attack::new(
        Target::Function,
        "requests with 253 descriptors",
        descriptors_of_client,
    )
    .busy(),
    Attack::new(
        Target::ProxyByClient,
        "requests with 253 descriptors",
        descriptors_of_client,
    )
    .busy(),
];

/// The number of connections that the peer tries to have.
const CONNECTIONS: usize = 400;

fn crowd(victim: &Victim<'_>) -> Result<Siege> {
    let mut crowd = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = rustix::net::socket_with(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::NONBLOCK | rustix::net::SocketFlags::CLOEXEC,
            None,
        )?;
        let address = rustix::net::SocketAddrUnix::new(victim.socket())?;
        // The backlog of the socket may be full.
        if rustix::net::connect(&stream, &address).is_ok() {
            crowd.push(UnixStream::from(stream));
        }
    }
    Ok(Box::new(crowd))
}

/// Sends messages with as many descriptors as the kernel takes, and connects again when the program
/// drops the peer.
fn flood(victim: &Victim<'_>, first: Vec<u8>, message: Vec<u8>) -> Result<Siege> {
    let (socket, event) = (victim.socket(), SharedEventFd::new()?);
    let flood = Repeat::start(move || {
        let fds = vec![event.as_fd(); 253];
        let Ok(stream) = connect(&socket) else {
            return true;
        };
        let mut sent = send_with(&stream, &first, &[]);
        while sent.is_ok() {
            sent = send_with(&stream, &message, &fds);
        }
        true
    })?;
    Ok(Box::new(flood))
}

fn descriptors(victim: &Victim<'_>) -> Result<Siege> {
    // SET_OWNER, and then SET_VRING_KICK of queue 0.
    let kick = vhost_user(12, NEED_REPLY, &[0; 8]);
    flood(victim, vhost_user(3, 0, &[]), kick)
}

fn descriptors_of_client(victim: &Victim<'_>) -> Result<Siege> {
    // DEVICE_SET_IRQS: an eventfd for MSI-X vector 0.
    let fields = [20u32, 0x24, 2, 0, 1].map(u32::to_le_bytes);
    flood(victim, version(), vfio_user(8, &fields.concat()))
}
