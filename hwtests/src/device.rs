//! Serves a device to a Linux guest over vhost-user, vfio-user or VVU, from a program in its full
//! sandbox.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::lab::Lab;
use crate::process::Process;
use crate::scenario::{DeviceVm, MEMORY, Proxy, end, start};
use crate::vm::{Memory, Vm, VmBuilder};

/// The way in which the guest reaches the device.
#[derive(Clone, Copy, Debug)]
pub enum Carrier {
    /// The vhost-user front-end of an old QEMU.
    VhostUser,
    /// A virtio PCI function that the program serves at a vfio-user socket.
    VirtioPci,
    /// A VVU function in a device VM, and the vhost-user front-end of a new QEMU.
    Vvu,
}

/// A device under test.
#[derive(Debug)]
pub struct Device {
    /// The path of the program that serves the device. The program is started with only the options
    /// that choose its transport and its sandbox.
    pub program: PathBuf,
    /// QEMU's front-end for the device, such as `vhost-user-rng-pci`.
    pub front_end: &'static str,
    /// The name of the kernel module with the guest's driver for the device.
    pub driver: &'static str,
}

impl Device {
    /// Starts a guest. The guest reaches the device over the transport `carrier`. Then this
    /// function calls `using`, and ends the guest and all programs. Fails if a program ends with an
    /// error.
    pub fn use_over(
        &self,
        lab: &Lab,
        carrier: Carrier,
        using: impl FnOnce(&Vm) -> Result<()>,
    ) -> Result<()> {
        let used = |guest: VmBuilder<'_>| {
            let guest = guest.module(self.driver).start()?;
            using(&guest)?;
            guest.shutdown()
        };
        let socket = lab.run.file("device.sock");
        match carrier {
            Carrier::VhostUser => {
                let program = self.serve(lab, "--socket-path", &socket)?;
                used(VmBuilder::new(lab, "guest").vhost_user(self.front_end, &socket))?;
                end(&program)
            }
            Carrier::VirtioPci => {
                let program = self.serve(lab, "--virtio-pci-socket", &socket)?;
                let guest = VmBuilder::new(lab, "guest").qemu(&lab.machine.new_qemu);
                used(guest.vfio_user(&socket, 0x10))?;
                end(&program)
            }
            Carrier::Vvu => self.use_over_vvu(lab, used),
        }
    }

    fn serve(&self, lab: &Lab, option: &str, socket: &Path) -> Result<Process> {
        start(lab, &self.program, [OsStr::new(option), socket.as_os_str()])
    }

    fn use_over_vvu(
        &self,
        lab: &Lab,
        used: impl FnOnce(VmBuilder<'_>) -> Result<()>,
    ) -> Result<()> {
        let proxy = Proxy::start(lab)?;
        let vm = DeviceVm::builder_with(lab, &proxy, &self.program)?.start()?;
        let name = self.program.file_name().unwrap_or_default();
        let device = DeviceVm::serve_with(lab, vm, &name.to_string_lossy(), "")?;
        let sibling = VmBuilder::new(lab, "sibling")
            .qemu(&lab.machine.new_qemu)
            .memory(Memory::File(proxy.memory.clone()), MEMORY)
            .vhost_user(self.front_end, &proxy.vhost_user);
        used(sibling)?;
        device.end()?;
        end(&proxy.process)
    }
}
