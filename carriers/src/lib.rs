//! Carries any virtio device to its driver, by the way that a command line names.
//!
//! There are three carriers: a virtio-vhost-user (VVU) function, a vhost-user socket, and a virtio
//! PCI function for vfio-user clients. A program flattens [`CarrierArguments`] into its command
//! line, and [`serve`] does the rest. `examples/null.rs` is a whole program.

mod arguments;
mod carrier;
mod error;

use std::error::Error;
use std::os::fd::AsFd;

use policies::{Context, DeviceName};
use program::jail::{self, Jail};
use program::{StopSignal, announce_ready};
use virtio::Runner;

pub use arguments::CarrierArguments;
pub use carrier::Carrier;
pub use error::CarrierError;

/// Serves a device over the carrier that the command line names, from inside a jail. Returns when
/// SIGTERM or SIGINT arrives, or when no further driver can come.
///
/// `device` names the policies of the device. Prints one line on stdout that begins with `ready: `
/// when the driver can come. With a jail, only the process inside returns. The process that called
/// exits as that one does.
///
/// To be called while there is only one thread.
///
/// # Errors
///
/// [`CarrierError`] or [`program::jail::JailError`].
pub fn serve(
    device: DeviceName,
    runner: Runner,
    carrier: &CarrierArguments,
    jail: jail::Options,
) -> Result<(), Box<dyn Error>> {
    let stop = StopSignal::install()?;
    let mut jail = Jail::new(jail);
    let inspector = jail.inspector()?;
    let carrier = Carrier::open(carrier, runner.queue_count(), inspector)?;
    jail.remove_at_end(carrier.socket_path().cloned());
    let context = Context::Device(device, carrier.transport_name());
    jail.close(context, || runner.prepare())?;
    // A failure does not matter: drivers are served even if nobody reads stdout.
    let _ = announce_ready(carrier.name());
    Ok(carrier.serve(runner, stop.as_fd())?)
}
