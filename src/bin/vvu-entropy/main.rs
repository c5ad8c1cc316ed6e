//! The program `vvu-entropy`, which gives a virtual machine random bytes as a virtio entropy
//! device.

#[cfg(test)]
#[path = "../../tests/man.rs"]
mod man;

use std::process::ExitCode;
use std::sync::Arc;

use carriers::CarrierArguments;
use clap::Parser;
use entropy::EntropyDevice;
use policies::DeviceName;
use program::jail::Jail;
use virtio::{RingOptions, Runner};

/// Give a virtual machine random bytes as a virtio entropy device.
///
/// The bytes come from the kernel of the system on which vvu-entropy runs. The options that connect
/// the device to a virtual machine are the same as those of vvu-block. When a front-end or VMM can
/// connect, vvu-entropy prints one line on stdout that begins with "ready: ".
#[derive(Debug, Parser)]
#[command(name = "vvu-entropy", version, max_term_width = 100)]
#[command(after_help = "\
QEMU with the PATH of --socket-path, with its memory shared:
  -chardev socket,id=rng,path=PATH -device vhost-user-rng-pci,chardev=rng

Exit status: 0 if told to stop or, with --fd, if the front-end left; 1 on failure; 2 on wrong \
usage; 3 after a system call that the policy does not allow; 4 if it had to be killed to stop.")]
struct Arguments {
    #[command(flatten)]
    carrier: CarrierArguments,
    #[command(flatten)]
    program: program::Options,
}

fn main() -> ExitCode {
    let Arguments { carrier, program } = Arguments::parse();
    program::run("vvu-entropy", program, carrier.fd, || {
        let runner = Runner::new(Arc::new(EntropyDevice), RingOptions::default());
        carriers::serve(DeviceName::Entropy, runner, &carrier, Jail::new(program))
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_manual_page_says_what_the_help_says() {
        crate::man::check(<super::Arguments as clap::CommandFactory>::command());
    }
}
