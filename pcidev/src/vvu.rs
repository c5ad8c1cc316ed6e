//! The virtio-vhost-user (VVU) device: gives a vhost-user front-end's messages, memory and eventfds
//! to a driver in another virtual machine.
//!
//! Messages cross two virtqueues (`model`) under the rules of `relay`; the front-end's memory is a
//! BAR (`window`); its kicks are interrupts (`notification`); its calls are doorbells (`doorbell`).
//!
//! Source: the device type proposed for the virtio specification in 2017, and what the QEMU and
//! crosvm implementations of it taught.

mod doorbell;
mod front_end;
mod identity;
mod model;
mod notification;
mod poller;
mod relay;
mod window;

pub use identity::Options;
pub use model::VvuDevice;
pub use window::{Window, WindowError};

/// Why a front-end's message cannot be passed on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

impl Refusal {
    fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}
