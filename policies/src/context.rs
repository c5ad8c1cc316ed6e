//! Contexts: what a program serves, and so which system calls it needs once its jail is closed.
//!
//! The build script compiles this file, too. It and all tests derive their lists from here.

use std::collections::BTreeSet;
use std::fmt;

/// Lists the devices, one a line: its name, the name of its policy, and the format of its image.
macro_rules! devices {
    ($($device:ident, $name:literal, $image:expr;)*) => {
        /// The name of a device whose queues have threads of their own.
        ///
        /// The policy `NAME.policy` says what the device needs, whatever its transport.
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

            /// The name of its policy.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$device => $name,)*
                }
            }

            /// The format of its image. `None`: it has no image.
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

/// What the file or block device behind a disk contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    /// The disk itself, so that its size never changes.
    Raw,
    /// A qcow2 image, whose file grows as its disk fills.
    Qcow2,
}

/// The name of a way in which a device is carried to its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportName {
    /// A PCI function of its own, at a vfio-user socket.
    Pci,
    /// A vhost-user socket.
    VhostUser,
    /// A virtio-vhost-user function of the kernel's VFIO.
    Vvu,
    /// A virtio-vhost-user function at a vfio-user socket.
    VvuVfioUser,
}

impl TransportName {
    /// All transports.
    pub const ALL: &[Self] = &[Self::Pci, Self::VhostUser, Self::Vvu, Self::VvuVfioUser];

    /// The name of its policy.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pci => "vfio_user",
            Self::VhostUser => "vhost_user",
            Self::Vvu => "vvu",
            Self::VvuVfioUser => "vvu_vfio_user",
        }
    }

    /// What follows the name of a device in the name of a context.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Pci => "_device",
            Self::VhostUser => "_device_vhost_user",
            Self::Vvu => "_device_vvu",
            Self::VvuVfioUser => "_device_vvu_vfio_user",
        }
    }
}

/// What a program serves, with a filter of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// A device behind a transport.
    Device(DeviceName, TransportName),
    /// `vvu-proxy`: a virtio-vhost-user function at a vfio-user socket, for a vhost-user socket.
    VvuProxy,
}

impl Context {
    /// All contexts: each device behind each transport, and the proxy.
    pub fn all() -> impl Iterator<Item = Self> {
        let behind_each = |device| {
            let transports = TransportName::ALL.iter();
            transports.map(move |transport| Self::Device(device, *transport))
        };
        let devices = DeviceName::ALL.iter().copied().flat_map(behind_each);
        devices.chain([Self::VvuProxy])
    }

    /// The device. `None`: the proxy.
    pub const fn device(self) -> Option<DeviceName> {
        match self {
            Self::Device(device, _) => Some(device),
            Self::VvuProxy => None,
        }
    }

    /// The transport. `None`: the proxy.
    pub const fn transport(self) -> Option<TransportName> {
        match self {
            Self::Device(_, transport) => Some(transport),
            Self::VvuProxy => None,
        }
    }

    /// The format of the device's image. `None`: it has no image.
    pub fn image(self) -> Option<ImageFormat> {
        self.device()?.image()
    }

    /// The policies that its own policy includes.
    pub fn includes(self) -> Vec<&'static str> {
        let parts = match self {
            Self::Device(device, transport) => [device.name(), transport.name()],
            Self::VvuProxy => [TransportName::Pci.name(), TransportName::VhostUser.name()],
        };
        ["common_device"].into_iter().chain(parts).collect()
    }
}

/// The name of its policy.
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(device, transport) => {
                write!(f, "{}{}", device.name(), transport.suffix())
            }
            Self::VvuProxy => f.write_str("vvu_proxy_device"),
        }
    }
}

/// The names of the policies that each architecture has to have, in order: those of the contexts,
/// and those that they include.
pub fn policy_names() -> BTreeSet<String> {
    let includes = Context::all().flat_map(Context::includes);
    let includes = includes.map(str::to_owned);
    let contexts = Context::all().map(|context| context.to_string());
    includes.chain(contexts).collect()
}
