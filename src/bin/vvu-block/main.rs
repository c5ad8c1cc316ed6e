//! `vvu-block`: serves a disk image to a virtual machine as a virtio block device.

mod args;
mod choices;
mod limits;
mod transport;

#[cfg(test)]
#[path = "../../tests/man.rs"]
mod man;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use block::{BlockDevice, Image, Options};
use clap::Parser;
use policies::Context;
use std::os::fd::AsFd;
use virtio::{RingOptions, Runner};
use vvu_block::jail::Jail;
use vvu_block::{StopSignal, announce_ready, exit_code, start_logging};

use args::Arguments;
use choices::Switch;

fn main() -> ExitCode {
    let arguments = Arguments::parse()
        .checked()
        .unwrap_or_else(|error| error.exit());
    start_logging(arguments.log_level);
    exit_code("vvu-block", run(arguments))
}

/// How many data segments a request may have. A front-end may make a ring of fewer descriptors than
/// were offered, and a request of the largest size has to fit that: QEMU's have 128 by default.
fn segments(queue_size: u16) -> u16 {
    queue_size.saturating_sub(2).clamp(1, 126)
}

fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let stop = StopSignal::install()?;
    let image = Arc::new(Image::open(&arguments.image, arguments.open_options())?);
    let mut jail = Jail::new(arguments.jail);
    let inspector = jail.inspector()?;
    let opened = transport::open(&arguments.transport, arguments.num_queues, inspector)?;
    jail.remove_at_end(opened.paths.iter().cloned());
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
    let context = Context::Device(arguments.format.device(), opened.transport_name);
    jail.close(context, || runner.prepare())?;
    // Nobody may be there to read it; the front-end is served all the same.
    let _ = announce_ready(&opened.name);
    let served = opened.serve(runner, stop.as_fd());
    // What was acknowledged goes to stable storage even when serving ended with an error.
    image
        .sync()
        .map_err(|error| format!("{}: flush: {error}", arguments.image.display()))?;
    served
}
