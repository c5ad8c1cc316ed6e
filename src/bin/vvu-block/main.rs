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
use carriers::CarrierError;
use clap::Parser;
use virtio::{RingOptions, Runner};
use vvu::driver::DriverError;

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
    served.map_err(with_advice)
}

/// Names the option that helps against an error, where one does.
fn with_advice(error: Box<dyn Error>) -> Box<dyn Error> {
    use DriverError::{TooFewQueues, TooFewVectors};
    match error.downcast_ref() {
        Some(CarrierError::Vvu(TooFewQueues { .. } | TooFewVectors { .. })) => {
            format!("{error}; ask for fewer queues with --num-queues").into()
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_with_too_few_queues_is_told_with_the_option_that_helps() {
        let too_few = DriverError::TooFewQueues {
            needed: 4,
            available: 1,
        };
        let text = with_advice(CarrierError::from(too_few).into()).to_string();
        assert!(text.ends_with("4 are needed; ask for fewer queues with --num-queues"));
        let other = CarrierError::from(DriverError::NotStarted);
        let text = with_advice(other.into()).to_string();
        assert_eq!(text, "the device is not started");
    }
}
