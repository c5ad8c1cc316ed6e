//! Why a PCI function cannot be used.

use std::io;
use std::path::PathBuf;

use vfio_ioctls::VfioError;
use vfio_user::ClientError;
use virtio::memory::MemoryFileError;

use super::{Address, BadAddress, Identity};

/// Why a PCI function cannot be used. The text names the problem and the remedy in one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PciError {
    /// The given text is not an address of a PCI function.
    #[error(transparent)]
    BadAddress(#[from] BadAddress),
    /// The machine has no device at the address.
    #[error("there is no PCI device {0}: `lspci -D` lists the devices")]
    NoSuchDevice(Address),
    /// The caller does not drive functions with this identity.
    #[error("{address} is another device: {identity}")]
    Unwanted {
        /// The function's address.
        address: Address,
        /// The identity of the function.
        identity: Identity,
    },
    /// The function is not bound to vfio-pci.
    #[error(
        "{address} is bound to {driver}, not to vfio-pci: as root, run {}",
        bind_commands(address)
    )]
    NotBound {
        /// The function's address.
        address: Address,
        /// The driver's name, or "no driver".
        driver: String,
    },
    /// The machine has no IOMMU, or the kernel does not use the IOMMU.
    #[error(
        "{0} has no IOMMU group, because the kernel uses no IOMMU: boot with intel_iommu=on or \
         amd_iommu=on; a virtual machine needs a virtual IOMMU that remaps interrupts"
    )]
    NoIommuGroup(Address),
    /// Other functions of the IOMMU group are in use.
    #[error(
        "IOMMU group {group} of {address} is not viable: bind its other members ({members}) to \
         vfio-pci too, or unbind them from their drivers"
    )]
    GroupNotViable {
        /// The function's address.
        address: Address,
        /// The number of the IOMMU group.
        group: String,
        /// The addresses and drivers of the group's members that are in use.
        members: String,
    },
    /// The IOMMU does not remap interrupts, so a device could forge interrupts.
    #[error(
        "the IOMMU does not remap interrupts for {0}: use an IOMMU that does or, if you trust the \
         device, load vfio_iommu_type1 with allow_unsafe_interrupts=1"
    )]
    NoInterruptRemapping(Address),
    /// The user has no permission to open a device node.
    #[error("no permission to open {}: run as root, or `chown $USER` it", .0.display())]
    NoPermission(PathBuf),
    /// A device node does not exist.
    #[error("{} does not exist: as root, run `modprobe vfio-pci`", .0.display())]
    NoVfio(PathBuf),
    /// Another process uses the function.
    #[error("{} is in use by another process: stop that process first", .0.display())]
    Busy(PathBuf),
    /// The limit on locked memory is too low for this process.
    #[error(
        "the limit on locked memory is too low to let the device access {kib} KiB: raise it with \
         `ulimit -l`, or with LimitMEMLOCK= in a systemd unit"
    )]
    MemlockLimit {
        /// The amount of memory that the device has to access, in KiB.
        kib: usize,
    },
    /// No vfio-user server listens on the socket.
    #[error("there is no vfio-user server at {}", .path.display())]
    NoVfioUserServer {
        /// The path of the socket.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A vfio-user server cannot be used.
    #[error("cannot use the vfio-user server at {}", .path.display())]
    VfioUser {
        /// The path of the server's socket.
        path: PathBuf,
        /// The error of the vfio-user client.
        source: ClientError,
    },
    /// The device of a vfio-user server is not a PCI function.
    #[error("the device of the vfio-user server at {} is not a PCI function", .0.display())]
    NotPci(PathBuf),
    /// The file of a BAR of a vfio-user server is of a kind that is not allowed.
    #[error("cannot use the files of the vfio-user server at {}", .path.display())]
    MemoryFile {
        /// The path of the server's socket.
        path: PathBuf,
        /// The reason why such files are not allowed.
        source: MemoryFileError,
    },
    /// The kernel has no VFIO driver for this type of IOMMU.
    #[error(
        "cannot use {0}, because the kernel's VFIO has no type 1 (version 2) IOMMU: as root, run \
         `modprobe vfio_iommu_type1`"
    )]
    NoType1(Address),
    /// A device node cannot be opened, for a reason that no other variant names.
    #[error("cannot use {address}: cannot open {}", .node.display())]
    Node {
        /// The function's address.
        address: Address,
        /// The device node.
        node: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// VFIO reports an error that no other variant names.
    #[error("cannot use {address} through VFIO")]
    Vfio {
        /// The function's address.
        address: Address,
        /// The error of VFIO.
        source: VfioError,
    },
    /// The operating system or the server refused something.
    #[error("cannot {what}")]
    Io {
        /// The action that failed. The text follows "cannot" in the message.
        what: &'static str,
        /// The error of the operating system or server.
        source: io::Error,
    },
}

/// A line of shell commands that binds a function to vfio-pci.
fn bind_commands(address: &Address) -> String {
    let device = format!("/sys/bus/pci/devices/{address}");
    [
        "modprobe vfio-pci".to_owned(),
        format!("echo vfio-pci > {device}/driver_override"),
        format!("[ ! -e {device}/driver ] || echo {address} > {device}/driver/unbind"),
        format!("echo {address} > /sys/bus/pci/drivers_probe"),
    ]
    .join("; ")
}
