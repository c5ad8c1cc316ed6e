//! The virtio-vhost-user (VVU) device. The device gives a driver in one virtual machine access to
//! the messages, memory and eventfds of another virtual machine's vhost-user front-end.
//!
//! The module `model` passes messages through two virtqueues, and `relay` changes some of the
//! messages. The front-end's memory appears as a BAR (`window`). The front-end's kicks raise
//! interrupts (`notification`). The driver's writes to doorbells signal the front-end's call and
//! error eventfds (`doorbell`).
//!
//! The device follows the device type that was proposed for the virtio specification in 2017, and
//! experience with the implementations of QEMU and crosvm.

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

pub use identity::Options;
pub use model::VvuDevice;
pub use window::{Window, WindowError};

/// Why a front-end's message cannot be passed on.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Memory(#[from] MemoryError),
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
