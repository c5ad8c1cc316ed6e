//! A vhost-user front-end. It behaves well unless an attack makes it do otherwise.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use anyhow::{Context, Result};
use ipc::SharedEventFd;
use vhost_user::{FrontEnd, ProtocolFeatures, Request, VringAddr, VringSetup};
use virtio::queue::{IN_ORDER, PACKED};
use virtio::test_utils::DriverRing;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

use super::shared::Shared;
use super::{PATIENCE, disk};

/// The size of a ring, in descriptors.
pub const RING: u16 = 16;

/// The features that the front-end leaves out. Without EVENT_IDX there is a call for each request.
const UNUSED: u64 = (1 << VIRTIO_RING_F_EVENT_IDX) | PACKED | IN_ORDER;

/// A front-end that has agreed on features.
#[derive(Debug)]
pub struct Guest {
    /// The connection to the program.
    pub messages: FrontEnd,
    /// The memory, which the program may or may not have.
    pub shared: Shared,
}

impl Guest {
    /// Connects to a socket, and agrees on all features.
    pub fn greet(socket: &Path, shared: Shared) -> Result<Self> {
        let mut messages = FrontEnd::connect(socket, PATIENCE)?;
        messages.negotiate(!UNUSED, ProtocolFeatures::all())?;
        Ok(Self { messages, shared })
    }

    /// Connects to a socket, and shares the memory.
    pub fn connect(socket: &Path, shared: Shared) -> Result<Self> {
        let mut guest = Self::greet(socket, shared)?;
        let table = Request::SetMemTable(guest.shared.table()?);
        guest.messages.request(table)?;
        Ok(guest)
    }

    /// Starts a queue.
    pub fn start(
        &mut self,
        index: u16,
        kick: Option<BorrowedFd<'_>>,
        call: Option<BorrowedFd<'_>>,
    ) -> Result<DriverRing> {
        let ring = self.shared.ring(index, RING)?;
        self.start_ring(index, &ring, kick, call)?;
        Ok(ring)
    }

    /// Starts a queue with a ring that exists, from the ring's position on.
    pub fn start_ring(
        &mut self,
        index: u16,
        ring: &DriverRing,
        kick: Option<BorrowedFd<'_>>,
        call: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let layout = ring.layout();
        let addr = VringAddr {
            index: index.into(),
            desc: layout.desc.0,
            avail: layout.avail.0,
            used: layout.used.0,
            ..VringAddr::default()
        };
        let (size, base) = (layout.size.into(), ring.position().into());
        let vring = VringSetup {
            size,
            base,
            addr,
            kick,
            call,
        };
        Ok(self.messages.start_vring(&vring)?)
    }
}

/// Uses a disk as a well-behaved front-end does.
pub fn check(socket: &Path, shared: Shared) -> Result<()> {
    let (kick, call) = (SharedEventFd::new()?, SharedEventFd::new()?);
    let mut guest = Guest::connect(socket, shared).context("a well-behaved front-end")?;
    let mut ring = guest.start(0, Some(kick.as_fd()), Some(call.as_fd()))?;
    let kick = || Ok(kick.signal()?);
    disk::check(&guest.shared, &mut ring, kick, call.as_fd())
}
