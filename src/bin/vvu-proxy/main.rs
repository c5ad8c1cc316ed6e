//! The program `vvu-proxy`, which gives a virtual machine a virtio-vhost-user device over
//! vfio-user.

mod args;
mod memory;

#[cfg(test)]
#[path = "../../tests/man.rs"]
mod man;

use std::error::Error;
use std::os::fd::AsFd;
use std::process::ExitCode;

use clap::Parser;
use ipc::Listener;
use pcidev::vvu::{Options, VvuDevice};
use policies::Context;
use program::jail::Jail;
use program::{StopSignal, announce_ready};
use virtio::memory::survive_losses;

use args::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    program::run("vvu-proxy", arguments.program, None, || serve(&arguments))
}

fn serve(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let stop = StopSignal::install()?;
    let (access, files) = (arguments.sockets.into(), arguments.memory_files.into());
    let front_ends = Listener::bind_for(&arguments.socket_path, access)?;
    let clients = Listener::bind_for(&arguments.vfio_user_path, access)?;
    let sockets = [&front_ends, &clients];
    let paths: Vec<_> = sockets
        .into_iter()
        .filter_map(Listener::path)
        .cloned()
        .collect();
    let window = memory::open(&arguments.memory, files)?;
    let options = Options {
        max_vhost_queues: arguments.max_queues,
        uuid: arguments.uuid,
    };
    let mut jail = Jail::new(arguments.program);
    let mut device = VvuDevice::new(options, window, front_ends)?;
    jail.remove_at_end(paths);
    jail.close(Context::VvuProxy, survive_losses)?;
    // A failed write to stdout does not matter, because clients can connect even if the line is not
    // printed.
    let _ = announce_ready(&format!(
        "vhost-user {}, vfio-user {}",
        arguments.socket_path.display(),
        arguments.vfio_user_path.display()
    ));
    pcidev::serve(&mut device, &clients, stop.as_fd())?;
    Ok(())
}
