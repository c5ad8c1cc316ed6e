//! The virtio-vhost-user (VVU) device. The device gives a driver in one virtual machine access to
//! the messages, memory and eventfds of another virtual machine's vhost-user front-end.
//!
//! The module `model` passes messages through two virtqueues, and the module `relay` changes some
//! of the messages. The module `window` shows the front-end's memory as a BAR. The module
//! `notification` turns the front-end's kicks into interrupts. The module `doorbell` signals the
//! front-end's call and error eventfds when the driver writes to doorbells.
//!
//! The device follows the proposal of the virtio-vhost-user device type for the virtio
//! specification (2017), and takes account of the implementations in QEMU and crosvm.

mod doorbell;
mod front_end;
mod identity;
mod model;
mod notification;
mod relay;
mod token;
mod window;

use std::io;
use std::path::PathBuf;

use ipc::SharedEventFdError;
use vhost_user::{MemoryError, RequestError};
use virtio::memory::MemoryFileError;

pub use identity::Options;
pub use model::VvuDevice;
pub use window::{Window, WindowError};

/// The reason for which a front-end's message cannot be passed on.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    MemoryFile(#[from] MemoryFileError),
    #[error("its memory is not the file {}{advice}", .path.display())]
    OtherFile { path: PathBuf, advice: String },
    #[error("region at file offset {0:#x} extends past the end of the file")]
    LeavesFile(u64),
    #[error("region at file offset {0:#x} overlaps another")]
    Overlap(u64),
    #[error("there is no queue {0}")]
    NoSuchQueue(u16),
    #[error("its descriptor cannot be used")]
    EventFd(#[from] SharedEventFdError),
    #[error("its descriptor cannot be used")]
    Descriptor(#[from] io::Error),
}
