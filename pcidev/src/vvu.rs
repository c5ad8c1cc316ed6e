//! The virtio-vhost-user (VVU) device: gives a vhost-user front-end's messages, memory and eventfds
//! to a driver in another virtual machine.
//!
//! Messages cross two virtqueues (`model`) under the rules of `relay`. The front-end's memory is a
//! BAR (`window`), and its kicks are interrupts (`notification`). The driver signals the
//! front-end's calls through doorbells (`doorbell`).
//!
//! Source: the device type that was proposed for the virtio specification in 2017, and experience
//! with the implementations of QEMU and crosvm.

mod doorbell;
mod front_end;
mod identity;
mod model;
mod notification;
mod relay;
mod token;
mod window;

use std::error::Error;
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
    #[error(transparent)]
    Inspection(Box<dyn Error + Send + Sync>),
    #[error("its memory is not the file {}{advice}", .path.display())]
    OtherFile { path: PathBuf, advice: String },
    #[error("region at file offset {0:#x} leaves the file")]
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
