//! The program `vvu-block`, which serves a disk image to a virtual machine as a virtio block
//! device.

mod advice;
mod args;
mod choices;
mod limits;

#[cfg(test)]
#[path = "../../tests/man.rs"]
mod man;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use block::{BlockDevice, Image, Options};
use clap::Parser;
use program::jail::Jail;
use virtio::{RingOptions, Runner};

use advice::Advised;
use args::Arguments;
use choices::Switch;

fn main() -> ExitCode {
    let arguments = Arguments::parse()
        .checked()
        .unwrap_or_else(|error| error.exit());
    let inherited = arguments.carrier.fd;
    program::run("vvu-block", arguments.program, inherited, || {
        serve(arguments)
    })
}

/// The maximum number of data segments in a request. The segments, the header and the status byte
/// of a request need a descriptor each and have to fit in a vring. A front-end may set up a vring
/// with fewer descriptors than `queue_size`, such as QEMU's default of 128, so the maximum is never
/// more than 126.
fn segments(queue_size: u16) -> u16 {
    queue_size.saturating_sub(2).clamp(1, 126)
}

fn serve(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let image = Image::open(&arguments.image, arguments.open_options());
    let image = Arc::new(image.map_err(Advised::from)?);
    let options = Options {
        queues: arguments.num_queues,
        segments: segments(arguments.queue_size),
        serial: arguments.serial,
    };
    let device = BlockDevice::new(image.clone(), options)?
        .with_engine(arguments.aio.into())
        .with_limits(arguments.limits.into());
    let rings = RingOptions {
        max_size: arguments.queue_size,
        packed: arguments.packed == Switch::On,
        in_order: arguments.in_order == Switch::On,
    };
    let runner = Runner::new(Arc::new(device), rings);
    let name = arguments.format.device();
    let mut jail = Jail::new(arguments.program);
    jail.sync_at_end(image.file_to_sync()?);
    let served = carriers::serve(name, runner, &arguments.carrier, jail);
    // Written data is flushed to stable storage even if serving ended with an error.
    image
        .sync()
        .map_err(|error| format!("cannot flush {}: {error}", arguments.image.display()))?;
    served.map_err(advice::for_carrier)
}
