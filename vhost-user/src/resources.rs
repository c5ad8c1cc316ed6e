//! What the descriptors of requests become on their way to a session.

use std::error::Error;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use ipc::{SharedEventFd, SharedEventFdError};
use virtio::memory::RegionError;
use virtio::{Notifier, Region};

use crate::memory::MemoryTable;

/// What a [`Request`](crate::Request) has in the place of descriptors.
pub trait Resources {
    /// Memory of the front-end.
    type Memory: Debug;
    /// What becomes readable when the front-end kicks.
    type Kick: Debug;
    /// What tells the front-end something.
    type Notifier: Debug;
    /// Anything else.
    type File: Debug;
}

/// A descriptor as messages bring it.
pub trait Descriptor: Debug {}

impl Descriptor for OwnedFd {}
impl Descriptor for BorrowedFd<'_> {}
impl Descriptor for Absent {}

impl<D: Descriptor> Resources for D {
    type Memory = D;
    type Kick = D;
    type Notifier = D;
    type File = D;
}

/// In the place of a descriptor that stayed behind: a virtio-vhost-user device keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absent;

/// The resources of a request that a session can serve, the same for all transports.
#[derive(Clone, Copy, Debug)]
pub enum Attached {}

impl Resources for Attached {
    type Memory = Arc<Region>;
    type Kick = Arc<SharedEventFd>;
    type Notifier = Arc<dyn Notifier>;
    type File = OwnedFd;
}

/// What a front-end is told by a notifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The vring has used buffers.
    Call,
    /// The vring is broken.
    Error,
}

/// Turns descriptors into what they stand for.
pub trait Attach {
    /// What a descriptor is here.
    type Descriptor: Descriptor;
    /// What it becomes.
    type Into: Resources;

    /// Makes a front-end's memory accessible.
    ///
    /// # Errors
    ///
    /// [`AttachError`].
    fn memory(
        &mut self,
        table: MemoryTable<Self::Descriptor>,
    ) -> Result<MemoryTable<<Self::Into as Resources>::Memory>, AttachError>;

    /// What becomes readable with the kicks of vring `index`.
    ///
    /// # Errors
    ///
    /// [`AttachError`].
    fn kick(
        &mut self,
        index: u8,
        fd: Self::Descriptor,
    ) -> Result<<Self::Into as Resources>::Kick, AttachError>;

    /// What gives a signal about vring `index`; `None` where there is no way to give it.
    ///
    /// # Errors
    ///
    /// [`AttachError`].
    fn notifier(
        &mut self,
        index: u8,
        signal: Signal,
        fd: Self::Descriptor,
    ) -> Result<Option<<Self::Into as Resources>::Notifier>, AttachError>;

    /// A descriptor that is none of these.
    ///
    /// # Errors
    ///
    /// [`AttachError`].
    fn file(
        &mut self,
        fd: Self::Descriptor,
    ) -> Result<<Self::Into as Resources>::File, AttachError>;
}

/// Leaves descriptors what they are.
pub(crate) struct AsTheyAre<D>(pub(crate) PhantomData<D>);

impl<D: Descriptor> Attach for AsTheyAre<D> {
    type Descriptor = D;
    type Into = D;

    fn memory(&mut self, table: MemoryTable<D>) -> Result<MemoryTable<D>, AttachError> {
        Ok(table)
    }

    fn kick(&mut self, _index: u8, fd: D) -> Result<D, AttachError> {
        Ok(fd)
    }

    fn notifier(&mut self, _index: u8, _: Signal, fd: D) -> Result<Option<D>, AttachError> {
        Ok(Some(fd))
    }

    fn file(&mut self, fd: D) -> Result<D, AttachError> {
        Ok(fd)
    }
}

/// Why what a request brought along cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// Memory cannot be mapped.
    #[error("the front-end's memory has to be a file that is shared")]
    Map(#[from] RegionError),
    /// The memory was looked at and is of no use.
    #[error(transparent)]
    Inspection(Box<dyn Error + Send + Sync>),
    /// A descriptor is not an eventfd.
    #[error(transparent)]
    EventFd(#[from] SharedEventFdError),
    /// There is no such vring.
    #[error("there is no vring {0}")]
    NoSuchVring(u8),
    /// The descriptor did not come this way.
    #[error("its descriptor stayed behind")]
    Absent,
    /// What a transport of another kind says.
    #[error(transparent)]
    Transport(Box<dyn Error + Send + Sync>),
}
