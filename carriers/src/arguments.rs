//! The command-line options that select the carrier (transport).

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use program::SocketOptions;
use vvu::driver::Dialect;

use crate::MemoryFileArguments;

/// How the driver reaches the device. A command line names exactly one way.
#[derive(Args, Clone, Debug)]
#[group(skip)]
#[command(group = ArgGroup::new("carrier").required(true))]
pub struct CarrierArguments {
    /// Drive the VVU function at this address. The address is the PCI address (0000:00:10.0) of a
    /// function that is bound to vfio-pci, or a vfio-user socket (vfio-user:/run/vvu0.sock).
    #[arg(long, group = "carrier", value_name = "ADDRESS")]
    pub pci: Option<String>,

    /// The dialect of the VVU device: ours, spec, qemu or crosvm [default: chosen by the device's
    /// PCI identity].
    #[arg(long, value_name = "NAME")]
    #[arg(conflicts_with_all = ["socket_path", "fd", "virtio_pci_socket"])]
    pub vvu_dialect: Option<Dialect>,

    /// Listen for front-ends on a vhost-user socket at this path.
    #[arg(long, group = "carrier", value_name = "PATH")]
    pub socket_path: Option<PathBuf>,

    /// Serve a virtio PCI function to vfio-user clients that connect to a socket at this path.
    #[arg(long, group = "carrier", value_name = "PATH")]
    pub virtio_pci_socket: Option<PathBuf>,

    /// Serve front-ends over this inherited file descriptor of a vhost-user socket. A connected
    /// socket serves one front-end. A listening socket serves all front-ends that connect.
    #[arg(long, group = "carrier", value_name = "NUMBER")]
    #[arg(value_parser = clap::value_parser!(i32).range(3..))]
    pub fd: Option<i32>,

    /// The users who may connect to the socket.
    #[command(flatten)]
    pub sockets: SocketOptions,

    /// The kinds of files that peers may share as memory.
    #[command(flatten)]
    pub memory_files: MemoryFileArguments,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        carrier: CarrierArguments,
    }

    fn parse(words: &str) -> Result<CarrierArguments, clap::Error> {
        let parsed = Program::try_parse_from(["program"].into_iter().chain(words.split(' ')));
        parsed.map(|program| program.carrier)
    }

    #[test]
    fn exactly_one_carrier_is_needed() {
        assert!(Program::try_parse_from(["program"]).is_err());
        assert!(parse("--fd 3 --socket-path s").is_err());
        assert!(parse("--virtio-pci-socket s --fd 3").is_err());
        assert!(parse("--socket-path s").is_ok());
        assert!(parse("--virtio-pci-socket s").is_ok());
        assert_eq!(parse("--fd 3").unwrap().fd, Some(3));
    }

    #[test]
    fn only_vvu_devices_have_a_dialect() {
        assert!(parse("--virtio-pci-socket s --vvu-dialect qemu").is_err());
        assert!(parse("--socket-path s --vvu-dialect qemu").is_err());
        assert!(parse("--vvu-dialect qemu").is_err());
        assert!(parse("--pci 00:10.0 --vvu-dialect qemu").is_ok());
        assert!(parse("--pci 00:10.0 --vvu-dialect other").is_err());
    }

    #[test]
    fn standard_streams_are_not_sockets_of_front_ends() {
        assert!(parse("--fd 2").is_err());
    }
}
