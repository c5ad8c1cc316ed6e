//! Connects a virtio device to its driver by a carrier (transport). The command line selects the
//! carrier.
//!
//! There are three carriers: a virtio-vhost-user (VVU) function, a vhost-user socket, and a virtio
//! PCI function for vfio-user clients. A program flattens [`CarrierArguments`] into its command
//! line, and passes the arguments to [`serve`]. `examples/null.rs` is a complete program.

mod arguments;
mod carrier;
mod error;
mod memory_files;

use std::error::Error;
use std::os::fd::AsFd;

use policies::{Context, DeviceName};
use program::jail::Jail;
use program::{StopSignal, announce_ready};
use virtio::{NoRequests, Runner};

pub use arguments::CarrierArguments;
pub use carrier::Carrier;
pub use error::CarrierError;
pub use memory_files::MemoryFileArguments;

/// Serves a device over the carrier that the command line selects, from inside a jail. Returns when
/// SIGTERM or SIGINT arrives, or when no further driver can connect.
///
/// `device` selects the policies of the jail. When drivers can connect, this function prints one
/// line on stdout that begins with `ready: `. With a jail, this function returns only in the
/// process inside the jail. The calling process waits for that process and exits with its exit
/// code.
///
/// This function has to be called while the process has only one thread.
///
/// # Errors
///
/// [`CarrierError`] or [`program::jail::JailError`].
pub fn serve(
    device: DeviceName,
    runner: Runner,
    carrier: &CarrierArguments,
    mut jail: Jail,
) -> Result<(), Box<dyn Error>> {
    let runner = runner.with_hint(advise_to_share);
    let stop = StopSignal::install()?;
    let carrier = Carrier::open(carrier, runner.queue_count())?;
    jail.remove_at_end(carrier.socket_path().cloned());
    let context = Context::Device(device, carrier.transport_name());
    jail.close(context, || runner.prepare())?;
    // An error is ignored, because the device serves drivers even if stdout is closed.
    let _ = announce_ready(carrier.name());
    Ok(carrier.serve(runner, stop.as_fd())?)
}

/// Logs a hint for users of QEMU. QEMU's memory back-ends are private without the option
/// `share=on`.
fn advise_to_share(event: NoRequests) {
    tracing::warn!(
        "{event}: start the front-end's QEMU with share=on: -object \
         memory-backend-file,id=mem,mem-path=FILE,size=SIZE,share=on -machine memory-backend=mem"
    );
}
