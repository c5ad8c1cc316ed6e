//! A virtio-vhost-user device that lies to its driver. The fuzz target in `fuzz/` uses this module,
//! and tests use it with the fuzz target's stored inputs.

mod liar;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use ipc::SharedEventFd;
use vhost_user::session;
use virtio::test_utils::NullDevice;
use virtio::{RingOptions, Runner};

use crate::VvuTransport;
use crate::virtio_pci::Patience;
use liar::Liar;

/// Limits with which the driver checks the device only once.
const IMPATIENT: Patience = Patience {
    limit: Duration::ZERO,
    step: Duration::ZERO,
};

const DEVICE: NullDevice = NullDevice {
    queues: 2,
    features: 0,
};

/// Serves the front-ends of the device that `input` describes. The device takes one step each time
/// the driver waits, and is unplugged after the last step. See [`Liar`] for the input.
///
/// # Panics
///
/// When the driver or a queue panics, or the system is out of descriptors.
pub fn check(input: &[u8]) {
    let rings = RingOptions {
        max_size: 256,
        ..RingOptions::default()
    };
    let mut runner = Runner::new(Arc::new(DEVICE), rings);
    runner.prepare().expect("a handler of lost memory");
    let stop = SharedEventFd::new().expect("a descriptor");
    let liar = Arc::new(Liar::new(input));
    let transport = VvuTransport::with_patience(liar, DEVICE.queues, None, IMPATIENT);
    if let Ok(mut transport) = transport {
        // The session fails in the end, because the device is unplugged.
        let served = session::serve(&mut transport, &mut runner, stop.as_fd());
        assert!(served.is_err(), "a session without a device");
    }
}

#[cfg(test)]
mod tests;
