//! What can be wrong with a PCI function.

use std::io;
use std::path::PathBuf;

use vfio_ioctls::VfioError;
use vfio_user::ClientError;

use super::{Address, BadAddress, Identity};

/// Why a PCI function cannot be used: one line that says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PciError {
    /// Text that is no address.
    #[error(transparent)]
    BadAddress(#[from] BadAddress),
    /// Nothing is at the address.
    #[error("there is no PCI device {0}: `lspci -D` lists those that there are")]
    NoSuchDevice(Address),
    /// The function is not what it was opened for.
    #[error("{address} is another device: {identity}")]
    Unwanted {
        /// The function's address.
        address: Address,
        /// What it is.
        identity: Identity,
    },
    /// The function belongs to another driver, or to none.
    #[error(
        "{address} is bound to {driver}, not to vfio-pci: as root, run {}",
        bind_commands(address)
    )]
    NotBound {
        /// The function's address.
        address: Address,
        /// The driver's name, or what to say when there is none.
        driver: String,
    },
    /// The machine has no IOMMU, or does not use it.
    #[error(
        "{0} has no IOMMU group, because there is no IOMMU: boot with intel_iommu=on or \
         amd_iommu=on; a virtual machine needs a virtual IOMMU that remaps interrupts"
    )]
    NoIommuGroup(Address),
    /// Other functions of the group are in use.
    #[error(
        "IOMMU group {group} of {address} is not viable: bind its other members ({members}) to \
         vfio-pci too, or unbind them from their drivers"
    )]
    GroupNotViable {
        /// The function's address.
        address: Address,
        /// The group's number.
        group: String,
        /// Addresses and drivers of the members in use.
        members: String,
    },
    /// Interrupts cannot be remapped, so that a device could forge them.
    #[error(
        "the IOMMU does not remap interrupts for {0}: use one that does, or, where the device is \
         trusted, load vfio_iommu_type1 with allow_unsafe_interrupts=1"
    )]
    NoInterruptRemapping(Address),
    /// A device node may not be opened.
    #[error("no permission to open {}: run as root, or `chown $USER` it", .0.display())]
    NoPermission(PathBuf),
    /// A device node does not exist.
    #[error("{} does not exist: as root, run `modprobe vfio-pci`", .0.display())]
    NoVfio(PathBuf),
    /// Another process has the function.
    #[error("{} is in use by another process: stop that first", .0.display())]
    Busy(PathBuf),
    /// No more memory may be locked.
    #[error(
        "the limit on locked memory is too low to let the device access {kib} KiB: raise it with \
         `ulimit -l`, or with LimitMEMLOCK= in a systemd unit"
    )]
    MemlockLimit {
        /// How much is needed, in KiB.
        kib: usize,
    },
    /// Nobody listens where a vfio-user server should.
    #[error("there is no vfio-user server at {}", .path.display())]
    NoVfioUserServer {
        /// Where its socket should be.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A vfio-user server cannot be used.
    #[error("cannot use the vfio-user server at {}", .path.display())]
    VfioUser {
        /// Its socket.
        path: PathBuf,
        /// What went wrong.
        source: ClientError,
    },
    /// A vfio-user server has another kind of device.
    #[error("the device of the vfio-user server at {} is not a PCI function", .0.display())]
    NotPci(PathBuf),
    /// The kernel lacks what drives the IOMMU.
    #[error(
        "cannot use {0}, because the kernel's VFIO has no type 1 (version 2) IOMMU: as root, run \
         `modprobe vfio_iommu_type1`"
    )]
    NoType1(Address),
    /// A device node cannot be opened, for another reason.
    #[error("cannot use {address}: cannot open {}", .node.display())]
    Node {
        /// The function's address.
        address: Address,
        /// The device node.
        node: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Something else that VFIO says.
    #[error("cannot use {address} through VFIO")]
    Vfio {
        /// The function's address.
        address: Address,
        /// What went wrong.
        source: VfioError,
    },
    /// The operating system or the server refused something.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What was answered.
        source: io::Error,
    },
}

/// Shell commands, in one line, that bind a function to vfio-pci.
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
