//! An example of a device with little code. The device returns each buffer unchanged.
//!
//! `cargo run -p vvu-carriers --example null -- --socket-path /tmp/null.sock`

use std::process::ExitCode;
use std::sync::Arc;

use carriers::CarrierArguments;
use clap::Parser;
use policies::DeviceName;
use program::jail::Jail;
use virtio::{Chain, Device, DeviceKind, RingOptions, Runner, ServeError, ServedQueue, Wake};

/// Serve a virtio device that does nothing.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    carrier: CarrierArguments,
    #[command(flatten)]
    program: program::Options,
}

struct Null;

impl Device for Null {
    /// This device has the id and class of an entropy device, because guests have a driver for
    /// entropy devices and QEMU has a front-end for them. The guest's driver waits forever for
    /// random bytes.
    fn kind(&self) -> DeviceKind {
        let (id, class) = (4, 0x00_ff00);
        DeviceKind { id, class }
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_count(&self) -> u16 {
        1
    }

    fn serve(&self, queue: &mut ServedQueue, wake: &Wake) -> Result<(), ServeError> {
        let mut chain = Chain::default();
        while queue.next(&mut chain, wake)? {
            queue.give_back(&chain, 0)?;
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    let Arguments { carrier, program } = Arguments::parse();
    program::run("null", program, carrier.fd, || {
        let runner = Runner::new(Arc::new(Null), RingOptions::default());
        carriers::serve(DeviceName::Null, runner, &carrier, Jail::new(program))
    })
}
