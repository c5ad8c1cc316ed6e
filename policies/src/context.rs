//! Contexts. A context is `vvu-proxy`, the supervisor of a program, or a device with a transport.
//! It determines the system calls that a process needs after its jail is closed.
//!
//! The build script compiles this file, too. The build script and all tests derive their lists of
//! policies from this file.

use std::collections::BTreeSet;
use std::fmt;

/// Lists the devices, one per line. A line has the name of a device, the name of its policy, and
/// the format of its image.
macro_rules! devices {
    ($($device:ident, $name:literal, $image:expr;)*) => {
        /// The name of a device whose queues have threads of their own.
        ///
        /// The policy `NAME.policy` lists the system calls that the device needs with any
        /// transport.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DeviceName {
            $(
                #[doc = concat!("The device `", $name, "`.")]
                $device,
            )*
        }

        impl DeviceName {
            /// All devices.
            pub const ALL: &[Self] = &[$(Self::$device),*];

            /// The name of the device's policy.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$device => $name,)*
                }
            }

            /// The format of the device's image. `None` if the device has no image.
            pub const fn image(self) -> Option<ImageFormat> {
                match self {
                    $(Self::$device => $image,)*
                }
            }
        }
    };
}

devices! {
    Block, "block", Some(ImageFormat::Raw);
    BlockQcow2, "block_qcow2", Some(ImageFormat::Qcow2);
    Entropy, "entropy", None;
    Null, "null", None;
}

/// The format of the image file or block device that a disk is stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    /// The bytes of the disk, without a header. The size of a raw image never changes.
    Raw,
    /// A qcow2 image. The image file grows as data is written to the disk.
    Qcow2,
}

/// The name of a transport, which connects a device to its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportName {
    /// A virtio PCI function that the program serves at a vfio-user socket.
    Pci,
    /// A vhost-user socket that the program serves.
    VhostUser,
    /// A virtio-vhost-user PCI function that the program drives through the kernel's VFIO.
    Vvu,
    /// A virtio-vhost-user PCI function that the program drives through a vfio-user socket.
    VvuVfioUser,
}

impl TransportName {
    /// All transports.
    pub const ALL: &[Self] = &[Self::Pci, Self::VhostUser, Self::Vvu, Self::VvuVfioUser];

    /// The name of the transport's policy.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pci => "vfio_user",
            Self::VhostUser => "vhost_user",
            Self::Vvu => "vvu",
            Self::VvuVfioUser => "vvu_vfio_user",
        }
    }

    /// The suffix that follows the name of the device in the name of a context.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Pci => "_device",
            Self::VhostUser => "_device_vhost_user",
            Self::Vvu => "_device_vvu",
            Self::VvuVfioUser => "_device_vvu_vfio_user",
        }
    }
}

/// A context, which has its own seccomp filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// A device with a transport.
    Device(DeviceName, TransportName),
    /// `vvu-proxy`, which serves a virtio-vhost-user PCI function at a vfio-user socket, and serves
    /// a vhost-user socket.
    VvuProxy,
    /// The supervisor process of a program. It talks to no peer.
    Supervisor,
}

impl Context {
    /// All contexts: each device with each transport, `vvu-proxy`, and the supervisor.
    pub fn all() -> impl Iterator<Item = Self> {
        let behind_each = |device| {
            let transports = TransportName::ALL.iter();
            transports.map(move |transport| Self::Device(device, *transport))
        };
        let devices = DeviceName::ALL.iter().copied().flat_map(behind_each);
        devices.chain([Self::VvuProxy, Self::Supervisor])
    }

    /// The device of the context. `None` for `vvu-proxy` and the supervisor.
    pub const fn device(self) -> Option<DeviceName> {
        match self {
            Self::Device(device, _) => Some(device),
            Self::VvuProxy | Self::Supervisor => None,
        }
    }

    /// The transport of the context. `None` for `vvu-proxy` and the supervisor.
    pub const fn transport(self) -> Option<TransportName> {
        match self {
            Self::Device(_, transport) => Some(transport),
            Self::VvuProxy | Self::Supervisor => None,
        }
    }

    /// The format of the device's image. `None` if the context has no image.
    pub fn image(self) -> Option<ImageFormat> {
        self.device()?.image()
    }

    /// The names of the policies that the context's policy includes directly.
    pub fn includes(self) -> Vec<&'static str> {
        let device = "common_device";
        match self {
            Self::Device(name, transport) => vec![device, name.name(), transport.name()],
            Self::VvuProxy => {
                let transports = [TransportName::Pci, TransportName::VhostUser];
                let transports = transports.map(TransportName::name);
                [device].into_iter().chain(transports).collect()
            }
            Self::Supervisor => vec!["common"],
        }
    }
}

/// Writes the name of the context's policy.
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(device, transport) => {
                write!(f, "{}{}", device.name(), transport.suffix())
            }
            Self::VvuProxy => f.write_str("vvu_proxy_device"),
            Self::Supervisor => f.write_str("supervisor"),
        }
    }
}

/// The sorted names of all policies that each architecture must have. These are the policies of the
/// contexts and the policies that they include directly.
pub fn policy_names() -> BTreeSet<String> {
    let includes = Context::all().flat_map(Context::includes);
    let includes = includes.map(str::to_owned);
    let contexts = Context::all().map(|context| context.to_string());
    includes.chain(contexts).collect()
}
