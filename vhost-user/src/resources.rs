//! The objects that a transport makes from the descriptors of requests.

use std::error::Error;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use ipc::{SharedEventFd, SharedEventFdError};
use virtio::memory::{MemoryFileError, RegionError};
use virtio::{Notifier, Region};

use crate::memory::MemoryTable;

/// The types of the objects that a [`Request`](crate::Request) contains instead of descriptors.
pub trait Resources {
    /// An object that gives access to a region of the front-end's memory.
    type Memory: Debug;
    /// An object that becomes readable when the front-end kicks a vring.
    type Kick: Debug;
    /// An object that sends a signal to the front-end.
    type Notifier: Debug;
    /// The object for any other descriptor.
    type File: Debug;
}

/// A descriptor that comes with a message, or [`Absent`].
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

/// Stands for a descriptor that the transport did not pass on. For instance, a virtio-vhost-user
/// device passes no descriptors on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absent;

/// The object types of the requests that a session serves. They are the same for all transports.
#[derive(Clone, Copy, Debug)]
pub enum Attached {}

impl Resources for Attached {
    type Memory = Arc<Region>;
    type Kick = Arc<SharedEventFd>;
    type Notifier = Arc<dyn Notifier>;
    type File = OwnedFd;
}

/// The event that a notifier reports to the front-end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The vring has new used buffers.
    Call,
    /// The vring has failed.
    Error,
}

/// Turns the descriptors of requests into objects.
pub trait Attach {
    /// The type of a received descriptor.
    type Descriptor: Descriptor;
    /// The types of the objects that are made from descriptors.
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

    /// The object that becomes readable when the front-end kicks vring `index`.
    ///
    /// # Errors
    ///
    /// [`AttachError`].
    fn kick(
        &mut self,
        index: u8,
        fd: Self::Descriptor,
    ) -> Result<<Self::Into as Resources>::Kick, AttachError>;

    /// The object that sends a signal about vring `index` to the front-end. `None` means that this
    /// signal cannot be sent.
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

    /// The object for a descriptor that is not memory, a kick or a notifier.
    ///
    /// # Errors
    ///
    /// [`AttachError`].
    fn file(
        &mut self,
        fd: Self::Descriptor,
    ) -> Result<<Self::Into as Resources>::File, AttachError>;
}

/// An [`Attach`] that keeps descriptors unchanged.
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

/// The reason why the descriptors of a request cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The front-end's memory cannot be mapped.
    #[error("the front-end's memory has to be a file that is shared")]
    Map(#[from] RegionError),
    /// The file of the front-end's memory is of a kind that is not allowed.
    #[error(transparent)]
    Kind(#[from] MemoryFileError),
    /// A descriptor cannot be used as an eventfd.
    #[error(transparent)]
    EventFd(#[from] SharedEventFdError),
    /// The request names a vring that does not exist.
    #[error("there is no vring {0}")]
    NoSuchVring(u8),
    /// The transport did not pass the descriptor on.
    #[error("the transport did not pass its descriptor on")]
    Absent,
    /// An error of a transport that is not part of this crate.
    #[error(transparent)]
    Transport(Box<dyn Error + Send + Sync>),
}
