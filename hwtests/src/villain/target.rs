//! The programs and their peers.

/// The program that is attacked, and by which peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// `vvu-block --socket-path`, by its front-end.
    Socket,
    /// `vvu-block --virtio-pci-socket`, by its vfio-user client.
    Function,
    /// `vvu-proxy`, by its front-end. The device VM is well-behaved.
    ProxyByFrontEnd,
    /// `vvu-proxy`, by its vfio-user client.
    ProxyByClient,
}

impl Target {
    /// The name of the program and its peer in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Socket => "block, front-end",
            Self::Function => "block, client",
            Self::ProxyByFrontEnd => "proxy, front-end",
            Self::ProxyByClient => "proxy, client",
        }
    }
}
