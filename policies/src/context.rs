//! Contexts: what a program does, and so which calls it needs once its jail is closed.

/// One way of running a program, with a filter of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// `vvu-block` as a regular virtio device, served at a vfio-user socket.
    BlockDevice,
    /// `vvu-block` behind a vhost-user socket.
    BlockDeviceVhostUser,
    /// `vvu-block` behind a virtio-vhost-user function of the kernel's VFIO.
    BlockDeviceVvu,
    /// `vvu-block` behind a virtio-vhost-user function at a vfio-user socket.
    BlockDeviceVvuVfioUser,
    /// `vvu-proxy`.
    VvuProxyDevice,
}

impl Context {
    /// All of them, each at the place that its value as a number says.
    pub const ALL: [Self; 5] = [
        Self::BlockDevice,
        Self::BlockDeviceVhostUser,
        Self::BlockDeviceVvu,
        Self::BlockDeviceVvuVfioUser,
        Self::VvuProxyDevice,
    ];

    /// Its name, in log lines and as a file.
    pub fn name(self) -> &'static str {
        match self {
            Self::BlockDevice => "block_device",
            Self::BlockDeviceVhostUser => "block_device_vhost_user",
            Self::BlockDeviceVvu => "block_device_vvu",
            Self::BlockDeviceVvuVfioUser => "block_device_vvu_vfio_user",
            Self::VvuProxyDevice => "vvu_proxy_device",
        }
    }

    /// Its policy, in the folder of each architecture.
    pub fn file(self) -> String {
        format!("{}.policy", self.name())
    }
}
