//! Starts the programs under test, and the guests that use them.
//!
//! A sibling VM has a device that a vhost-user back-end serves. A device VM has the PCI function of
//! `vvu-proxy`, and serves a device to a sibling VM through this function.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::binaries;
use crate::guest::GuestProcess;
use crate::lab::Lab;
use crate::process::Process;
use crate::qemu::Qemu;
use crate::tree::Program;
use crate::vm::{Iommu, Memory, Vm, VmBuilder};
use crate::workload::DISK;

/// The PCI address of the VVU function in the device VM.
pub const BDF: &str = "0000:00:10.0";
const SLOT: u8 = 0x10;

/// The size of the sibling VM's memory and of the proxy's memory file, in MiB.
pub const MEMORY: u32 = 512;

/// The number of queues of the sibling VM's disk.
const QUEUES: u16 = 2;

/// The size of a test's disk in bytes.
pub const DISK_SIZE: u64 = 128 << 20;

/// The option for the full sandbox. A program that cannot set up the full sandbox ends, and then
/// the test fails.
const JAIL: [&str; 1] = ["--sandbox=full"];

/// The time limit for a program to become ready.
const READY: Duration = Duration::from_secs(30);

/// The time limit for a program to end after SIGTERM. Users rely on this limit.
pub const END: Duration = Duration::from_secs(2);

/// Starts a sibling VM whose disk is served at the vhost-user socket `socket`. The VM's memory is
/// in the file `memory`.
pub fn sibling(lab: &Lab, name: &str, qemu: &Qemu, socket: &Path, memory: &Path) -> Result<Vm> {
    new_sibling(lab, name, qemu, socket, memory)?.start()
}

/// Prepares a sibling VM as [`sibling`] does, but does not start the VM.
pub fn new_sibling<'a>(
    lab: &'a Lab,
    name: &str,
    qemu: &'a Qemu,
    socket: &Path,
    memory: &Path,
) -> Result<VmBuilder<'a>> {
    let mut sibling = VmBuilder::new(lab, name)
        .qemu(qemu)
        .cpus(2)
        .memory(Memory::File(memory.to_owned()), MEMORY)
        .vhost_user_blk(socket, QUEUES);
    for tool in ["mke2fs", "fio"] {
        sibling = sibling.program(lab.machine.program(tool)?);
    }
    Ok(sibling)
}

/// Starts `vvu-block` on the host. `transport` contains the options for the transport, such as
/// `--socket-path PATH`.
pub fn block(lab: &Lab, transport: &[&str], image: &Path) -> Result<Process> {
    let program = binaries::build("vvu-block", "vvu-block")?;
    start(
        lab,
        &program,
        transport.iter().map(OsStr::new).chain([image.as_os_str()]),
    )
}

/// Starts a program on the host, in its full sandbox, and waits until the program is ready.
pub fn start<'a>(
    lab: &Lab,
    program: &Path,
    arguments: impl IntoIterator<Item = &'a OsStr>,
) -> Result<Process> {
    let mut command = Command::new(program);
    command.args(JAIL).args(arguments);
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let process = Process::spawn(&name, &mut command, lab.run.path())?;
    process.wait_line("ready:", READY)?;
    Ok(process)
}

/// Ends a program with SIGTERM, and checks that it exits with 0 within [`END`].
pub fn end(process: &Process) -> Result<()> {
    let status = process.terminate(END)?.status;
    ensure!(
        status == 0,
        "{} ended with status {status}{}",
        process.name(),
        process.tail()
    );
    Ok(())
}

/// A running `vvu-proxy`.
#[derive(Debug)]
pub struct Proxy {
    /// The process of `vvu-proxy`.
    pub process: Process,
    /// The path of the vhost-user socket, to which the front-end connects.
    pub vhost_user: PathBuf,
    /// The path of the vfio-user socket, at which the proxy offers a PCI function.
    pub vfio_user: PathBuf,
    /// The path of the file with the memory of the vhost-user front-end.
    pub memory: PathBuf,
}

impl Proxy {
    /// Starts `vvu-proxy` on the host, and waits until it is ready.
    pub fn start(lab: &Lab) -> Result<Self> {
        let (vhost_user, vfio_user) = (lab.run.file("vu.sock"), lab.run.file("vvu0.sock"));
        let memory = lab.run.memory("sibling");
        let mut command = Command::new(binaries::build("vvu-block", "vvu-proxy")?);
        command
            .args(JAIL)
            .arg("--socket-path")
            .arg(&vhost_user)
            .arg("--vfio-user-path")
            .arg(&vfio_user)
            .arg("--memory")
            .arg(format!("{},size={MEMORY}M", memory.display()));
        let process = Process::spawn("vvu-proxy", &mut command, lab.run.path())?;
        process.wait_line("ready:", READY)?;
        Ok(Self {
            process,
            vhost_user,
            vfio_user,
            memory,
        })
    }

    /// Starts a sibling VM whose disk is served through this proxy.
    pub fn sibling(&self, lab: &Lab, name: &str, qemu: &Qemu) -> Result<Vm> {
        self.new_sibling(lab, name, qemu)?.start()
    }

    /// Prepares a sibling VM as [`Proxy::sibling`] does, but does not start the VM.
    pub fn new_sibling<'a>(
        &self,
        lab: &'a Lab,
        name: &str,
        qemu: &'a Qemu,
    ) -> Result<VmBuilder<'a>> {
        new_sibling(lab, name, qemu, &self.vhost_user, &self.memory)
    }
}

/// A device VM, which has the PCI function that `vvu-proxy` offers. A program in the VM serves a
/// device through the function. For instance, `vvu-block` serves a disk of the VM.
#[derive(Debug)]
pub struct DeviceVm {
    /// The VM that has the PCI function of `vvu-proxy`.
    pub vm: Vm,
    /// The program in the VM that serves the device.
    pub server: GuestProcess,
}

impl DeviceVm {
    /// Boots the VM, binds the PCI function to vfio-pci, and starts `vvu-block` in the VM.
    pub fn start(lab: &Lab, proxy: &Proxy, image: &Path) -> Result<Self> {
        Self::serve(lab, Self::builder(lab, proxy, image)?.start()?)
    }

    /// Prepares a device VM with `vvu-block` and a disk, but does not start the VM.
    pub fn builder<'a>(lab: &'a Lab, proxy: &Proxy, image: &Path) -> Result<VmBuilder<'a>> {
        let program = binaries::build("vvu-block", "vvu-block")?;
        Ok(Self::builder_with(lab, proxy, &program)?.disk(image))
    }

    /// Prepares a device VM that has the program `program` and no disk, but does not start the VM.
    pub fn builder_with<'a>(lab: &'a Lab, proxy: &Proxy, program: &Path) -> Result<VmBuilder<'a>> {
        Ok(VmBuilder::new(lab, "device")
            .qemu(&lab.machine.new_qemu)
            .memory(Memory::Memfd, MEMORY)
            .iommu(Iommu::Remapping)
            .vfio_user(&proxy.vfio_user, SLOT)
            .program(Program::host(program)?))
    }

    /// Restarts the VM, and starts `vvu-block` in the VM again.
    pub fn reboot(self, lab: &Lab) -> Result<Self> {
        self.vm.reboot()?;
        Self::serve(lab, self.vm)
    }

    /// Ends the program in the VM with SIGTERM, and then switches the VM off.
    pub fn end(self) -> Result<()> {
        // The emulated VM is slower than the host, so the program gets more time to end.
        let output = self.server.terminate(END * 2)?;
        ensure!(
            output.status == 0,
            "the program ended with status {} in the device VM\n{}",
            output.status,
            output.error_text()
        );
        self.vm.shutdown()
    }

    fn serve(lab: &Lab, vm: Vm) -> Result<Self> {
        Self::serve_disk(lab, vm, DISK)
    }

    /// Binds the PCI function to vfio-pci, and starts `vvu-block` with the disk `disk` of the VM.
    pub fn serve_disk(lab: &Lab, vm: Vm, disk: &str) -> Result<Self> {
        Self::serve_with(lab, vm, "vvu-block", disk)
    }

    /// Binds the PCI function to vfio-pci, and starts a program in the VM with these arguments.
    pub fn serve_with(lab: &Lab, vm: Vm, program: &str, arguments: &str) -> Result<Self> {
        bind(&vm)?;
        let log = lab.run.file(&format!("device.{program}.log"));
        let jail = JAIL.join(" ");
        let command = format!("exec {program} {jail} --pci {BDF} {arguments}");
        let server = vm.spawn_logged(&command, &log)?;
        server.wait_line("ready:", READY)?;
        Ok(Self { vm, server })
    }
}

/// Binds the PCI function at [`BDF`] to vfio-pci, so that a program in user space can use it.
pub fn bind(vm: &Vm) -> Result<()> {
    let script = format!(
        "set -e
        cd /sys/bus/pci/devices/{BDF}
        echo vfio-pci > driver_override
        if [ -e driver ]; then echo {BDF} > driver/unbind; fi
        echo {BDF} > /sys/bus/pci/drivers/vfio-pci/bind
        test -c /dev/vfio/$(basename $(readlink iommu_group))"
    );
    vm.check(&script)
        .context("cannot bind the PCI function to vfio-pci")?;
    Ok(())
}
