//! The programs under test and the guests around them, as tests and the demo start them.

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

/// Where the VVU function is in the device VM.
pub const BDF: &str = "0000:00:10.0";
const SLOT: u8 = 0x10;

/// The sibling's memory in MiB, which is also the size of the file that the proxy shares.
pub const MEMORY: u32 = 512;

/// Queues of the sibling's disk.
const QUEUES: u16 = 2;

/// Size of a test's disk.
pub const DISK_SIZE: u64 = 128 << 20;

/// All programs serve in a jail, complete or not at all.
const JAIL: [&str; 1] = ["--sandbox=full"];

/// How long a program may take to serve.
const READY: Duration = Duration::from_secs(30);

/// How long a program may take to end when told to: what its users were promised.
pub const END: Duration = Duration::from_secs(2);

/// A new sibling whose disk is behind `socket`, with its memory in the file `memory`.
pub fn sibling(lab: &Lab, name: &str, qemu: &Qemu, socket: &Path, memory: &Path) -> Result<Vm> {
    new_sibling(lab, name, qemu, socket, memory)?.start()
}

/// As [`sibling`], before it starts.
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

/// `vvu-block` on the host: `transport` is its options that say how it is reached.
pub fn block(lab: &Lab, transport: &[&str], image: &Path) -> Result<Process> {
    let mut command = Command::new(binaries::build("vvu-block", "vvu-block")?);
    command.args(JAIL).args(transport).arg(image);
    let block = Process::spawn("vvu-block", &mut command, lab.run.path())?;
    block.wait_line("ready:", READY)?;
    Ok(block)
}

/// Ends a program as its users would: SIGTERM, exit code 0, in time.
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
    /// The program.
    pub process: Process,
    /// Where a vhost-user front-end connects.
    pub vhost_user: PathBuf,
    /// Where the function's user connects.
    pub vfio_user: PathBuf,
    /// The front-end's memory.
    pub memory: PathBuf,
}

impl Proxy {
    /// Starts it.
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

    /// A sibling whose disk comes through this proxy.
    pub fn sibling(&self, lab: &Lab, name: &str, qemu: &Qemu) -> Result<Vm> {
        self.new_sibling(lab, name, qemu)?.start()
    }

    /// As [`Proxy::sibling`], before it starts.
    pub fn new_sibling<'a>(
        &self,
        lab: &'a Lab,
        name: &str,
        qemu: &'a Qemu,
    ) -> Result<VmBuilder<'a>> {
        new_sibling(lab, name, qemu, &self.vhost_user, &self.memory)
    }
}

/// A VM that has the proxy's function, and `vvu-block` in it that serves its disk through that.
#[derive(Debug)]
pub struct DeviceVm {
    /// The VM.
    pub vm: Vm,
    /// `vvu-block` in it.
    pub block: GuestProcess,
}

impl DeviceVm {
    /// Boots the VM, hands the function to user space, and starts `vvu-block`.
    pub fn start(lab: &Lab, proxy: &Proxy, image: &Path) -> Result<Self> {
        Self::serve(lab, Self::builder(lab, proxy, image)?.start()?)
    }

    /// What the VM is made of.
    pub fn builder<'a>(lab: &'a Lab, proxy: &Proxy, image: &Path) -> Result<VmBuilder<'a>> {
        let program = Program::host(&binaries::build("vvu-block", "vvu-block")?)?;
        Ok(VmBuilder::new(lab, "device")
            .qemu(&lab.machine.new_qemu)
            .memory(Memory::Memfd, MEMORY)
            .iommu(Iommu::Remapping)
            .disk(image)
            .vfio_user(&proxy.vfio_user, SLOT)
            .program(program))
    }

    /// Restarts the VM and serves again.
    pub fn reboot(self, lab: &Lab) -> Result<Self> {
        self.vm.reboot()?;
        Self::serve(lab, self.vm)
    }

    /// Ends `vvu-block` as its users would, then the VM.
    pub fn end(self) -> Result<()> {
        // Emulated, it may take longer than on the host.
        let output = self.block.terminate(END * 2)?;
        ensure!(
            output.status == 0,
            "vvu-block ended with status {} in the device VM\n{}",
            output.status,
            output.error_text()
        );
        self.vm.shutdown()
    }

    fn serve(lab: &Lab, vm: Vm) -> Result<Self> {
        Self::serve_disk(lab, vm, DISK)
    }

    /// Hands the function to user space, and serves this disk of the VM.
    pub fn serve_disk(lab: &Lab, vm: Vm, disk: &str) -> Result<Self> {
        bind(&vm)?;
        let log = lab.run.file("device.vvu-block.log");
        let block = vm.spawn_logged(
            &format!("exec vvu-block {} --pci {BDF} {disk}", JAIL.join(" ")),
            &log,
        )?;
        block.wait_line("ready:", READY)?;
        Ok(Self { vm, block })
    }
}

/// Hands the function at [`BDF`] to user space, as a user would.
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
        .context("cannot hand the function to vfio-pci")?;
    Ok(())
}
