//! `vvu-block`: serves a disk image to a virtual machine as a virtio block device.

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
use virtio::{RingOptions, Runner};

use args::Arguments;
use choices::Switch;

fn main() -> ExitCode {
    let arguments = Arguments::parse()
        .checked()
        .unwrap_or_else(|error| error.exit());
    program::run("vvu-block", arguments.program, || serve(arguments))
}

/// How many data segments a request may have. A front-end may make a ring of fewer descriptors than
/// were offered, and a request of the largest size has to fit that: QEMU's have 128 by default.
fn segments(queue_size: u16) -> u16 {
    queue_size.saturating_sub(2).clamp(1, 126)
}

fn serve(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let image = Arc::new(Image::open(&arguments.image, arguments.open_options())?);
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
    let served = carriers::serve(name, runner, &arguments.carrier, arguments.program.jail);
    // What was acknowledged goes to stable storage even when serving ended with an error.
    image
        .sync()
        .map_err(|error| format!("{}: flush: {error}", arguments.image.display()))?;
    served
}
