//! Virtual machines under QEMU (guests), whose first process is our agent.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::guest::{AgentConnection, GuestProcess};
use crate::initramfs::Initramfs;
use crate::lab::Lab;
use crate::live::{Live, Output, last_lines};
use crate::process::Process;
use crate::protocol::{FrameKind, PORT};
use crate::qemu::Qemu;
use crate::tree::Program;

/// The time limit for a guest to boot, under emulation on a busy machine.
pub const BOOT: Duration = Duration::from_secs(90);
/// The default time limit for a command in a guest.
pub const COMMAND: Duration = Duration::from_secs(60);
/// The time limit for a guest to switch itself off.
pub const POWER_OFF: Duration = Duration::from_secs(30);

/// The way in which QEMU allocates the memory of a guest.
#[derive(Clone, Debug)]
pub enum Memory {
    /// An anonymous file (memfd). QEMU passes its descriptor to device back-ends.
    Memfd,
    /// A file that other processes can open by its path.
    File(PathBuf),
}

/// The IOMMU of a guest. The guest's user space needs an IOMMU to drive a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Iommu {
    /// No IOMMU.
    None,
    /// An IOMMU that remaps memory accesses, but not interrupts.
    WithoutRemapping,
    /// An IOMMU that remaps memory accesses and interrupts.
    Remapping,
}

/// The configuration of a guest.
pub struct VmBuilder<'a> {
    lab: &'a Lab,
    name: String,
    qemu: &'a Qemu,
    memory: (Memory, u32),
    cpus: u32,
    iommu: Iommu,
    kernel_arguments: String,
    devices: Vec<OsString>,
    modules: Vec<&'static str>,
    programs: Vec<Program>,
}

impl<'a> VmBuilder<'a> {
    /// Prepares a guest with one processor, 256 MiB of memory, no disk, and QEMU 7.2 of Debian 12.
    pub fn new(lab: &'a Lab, name: &str) -> Self {
        Self {
            lab,
            name: name.to_owned(),
            qemu: &lab.machine.old_qemu,
            memory: (Memory::Memfd, 256),
            cpus: 1,
            iommu: Iommu::None,
            kernel_arguments: String::new(),
            devices: Vec::new(),
            modules: vec!["virtio_pci", "virtio_console", "virtio_blk"],
            programs: Vec::new(),
        }
    }

    /// Sets the QEMU that runs the guest.
    pub fn qemu(mut self, qemu: &'a Qemu) -> Self {
        self.qemu = qemu;
        self
    }

    /// Sets the size of the guest's memory in MiB, and the way in which QEMU allocates the memory.
    pub fn memory(mut self, memory: Memory, mebibytes: u32) -> Self {
        self.memory = (memory, mebibytes);
        self
    }

    /// Sets the number of the guest's processors.
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// Sets the guest's IOMMU, and adds the kernel modules that let user space drive a device.
    pub fn iommu(mut self, iommu: Iommu) -> Self {
        self.iommu = iommu;
        self.kernel_arguments += " intel_iommu=on";
        self.modules.extend(["vfio_iommu_type1", "vfio-pci"]);
        self
    }

    /// Adds an argument to the command line of the guest's kernel.
    pub fn kernel_argument(mut self, argument: &str) -> Self {
        self.kernel_arguments += " ";
        self.kernel_arguments += argument;
        self
    }

    /// Adds a disk with `queues` queues, which a vhost-user back-end serves at `socket`.
    pub fn vhost_user_blk(self, socket: &Path, queues: u16) -> Self {
        self.vhost_user(&format!("vhost-user-blk-pci,num-queues={queues}"), socket)
    }

    /// Adds the QEMU device `device`, whose vhost-user back-end listens at `socket`.
    pub fn vhost_user(self, device: &str, socket: &Path) -> Self {
        let id = format!("vhost{}", self.devices.len());
        self.arg("-chardev")
            .arg(joined(&format!("socket,id={id},path="), socket))
            .arg("-device")
            .arg(format!("{device},chardev={id}"))
    }

    /// Allows packed virtqueues for disks that vhost-user back-ends serve.
    pub fn packed_rings(self) -> Self {
        self.arg("-global").arg("vhost-user-blk-pci.packed=on")
    }

    /// Adds a disk image that QEMU itself serves.
    pub fn disk(self, image: &Path) -> Self {
        let id = format!("disk{}", self.devices.len());
        let drive = format!("if=none,id={id},format=raw,cache=writeback,file=");
        self.arg("-drive")
            .arg(joined(&drive, image))
            .arg("-device")
            .arg(format!("virtio-blk-pci,drive={id}"))
    }

    /// Adds a PCI function at `00:SLOT.0` that a vfio-user server serves at `socket`.
    pub fn vfio_user(self, socket: &Path, slot: u8) -> Self {
        let device = serde_json::json!({
            "driver": "vfio-user-pci",
            "addr": format!("{slot:x}.0"),
            "socket": { "type": "unix", "path": socket.to_string_lossy() },
        });
        self.arg("-device").arg(device.to_string())
    }

    /// Adds an argument to QEMU's command line.
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.devices.push(argument.into());
        self
    }

    /// Adds a kernel module, which the agent loads at boot.
    pub fn module(mut self, name: &'static str) -> Self {
        self.modules.push(name);
        self
    }

    /// Adds a program to the guest's initramfs.
    pub fn program(mut self, program: Program) -> Self {
        self.programs.push(program);
        self
    }

    /// Starts the guest and waits until it accepts commands.
    pub fn start(self) -> Result<Vm> {
        let name = self.name.clone();
        self.boot().with_context(|| format!("{name} VM"))
    }

    fn boot(self) -> Result<Vm> {
        let run = &self.lab.run;
        let file = |suffix: &str| run.file(&format!("{}.{suffix}", self.name));
        self.initramfs(&file("initramfs"))?;
        let socket = file("agent.sock");
        // An earlier guest with this name may have left its socket behind.
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket)
            .with_context(|| format!("cannot listen on {}", socket.display()))?;
        let console = file("console.log");
        let mut command = self.qemu.command();
        self.configure(&mut command, &socket, &console, &file("initramfs"));
        let qemu = Process::spawn(&format!("{}.qemu", self.name), &mut command, run.path())?;
        let stream = accept(&listener, &qemu)?;
        let agent = AgentConnection::new(stream)?;
        let vm = Vm {
            name: self.name,
            console,
            qemu,
            agent,
        };
        vm.agent
            .wait_boot(0, BOOT)
            .map_err(|error| vm.explain(&error))?;
        Ok(vm)
    }

    fn initramfs(&self, path: &Path) -> Result<()> {
        let mut initramfs = Initramfs::new(&self.lab.machine, &self.lab.agent)?;
        self.modules
            .iter()
            .try_for_each(|name| initramfs.module(name))?;
        self.programs
            .iter()
            .try_for_each(|program| initramfs.program(program))?;
        initramfs.write(path)
    }

    fn configure(&self, command: &mut Command, agent: &Path, console: &Path, initramfs: &Path) {
        let (memory, mebibytes) = &self.memory;
        let mut backend = match memory {
            Memory::Memfd => OsString::from("memory-backend-memfd"),
            Memory::File(path) => joined("memory-backend-file,mem-path=", path),
        };
        backend.push(format!(",id=ram,size={mebibytes}M,share=on"));
        command
            .args([
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-cpu",
                "max",
            ])
            .args([
                "-machine",
                "q35,accel=tcg,kernel-irqchip=split,memory-backend=ram",
            ])
            .args([
                "-m",
                &format!("{mebibytes}M"),
                "-smp",
                &self.cpus.to_string(),
            ])
            .arg("-object")
            .arg(backend);
        let remapping = match self.iommu {
            Iommu::None => None,
            Iommu::WithoutRemapping => Some("off"),
            Iommu::Remapping => Some("on"),
        };
        if let Some(remapping) = remapping {
            let iommu = format!("intel-iommu,intremap={remapping},caching-mode=on");
            command.args(["-device", &iommu]);
        }
        let arguments = format!("console=ttyS0 loglevel=5{}", self.kernel_arguments);
        let port = format!("virtserialport,chardev=agent,name={PORT}");
        command
            .arg("-kernel")
            .arg(&self.lab.machine.kernel.image)
            .arg("-initrd")
            .arg(initramfs)
            .args(["-append", &arguments])
            .arg("-serial")
            .arg(joined("file:", console))
            .arg("-chardev")
            .arg(joined("socket,id=agent,path=", agent))
            .args(["-device", "virtio-serial-pci", "-device", &port])
            .args(&self.devices);
    }
}

/// A running guest. Dropping this value kills the guest's QEMU.
#[derive(Debug)]
pub struct Vm {
    name: String,
    console: PathBuf,
    qemu: Process,
    agent: Arc<AgentConnection>,
}

impl Vm {
    /// Runs a shell command in the guest and waits for its end. It is not an error if the command
    /// fails.
    pub fn run(&self, command: &str) -> Result<Output> {
        self.run_within(command, COMMAND)
    }

    /// Runs a shell command like [`Vm::run`], with another time limit.
    pub fn run_within(&self, command: &str, timeout: Duration) -> Result<Output> {
        let process = self.spawn(command)?;
        process.wait(timeout).map_err(|error| self.explain(&error))
    }

    /// Runs a shell command in the guest and returns its standard output. It is an error if the
    /// command fails.
    pub fn check(&self, command: &str) -> Result<String> {
        self.check_within(command, COMMAND)
    }

    /// Runs a shell command like [`Vm::check`], with another time limit.
    pub fn check_within(&self, command: &str, timeout: Duration) -> Result<String> {
        let output = self.run_within(command, timeout)?;
        ensure!(
            output.status == 0,
            "{} VM: `{}` failed with status {}{}",
            self.name,
            command.lines().next().unwrap_or_default(),
            output.status,
            last_lines(&(output.text() + &output.error_text()), 12)
        );
        Ok(output.text())
    }

    /// Starts a shell command in the guest, and does not wait for its end.
    pub fn spawn(&self, command: &str) -> Result<GuestProcess> {
        self.spawn_live(command, Live::default())
    }

    /// Starts a shell command like [`Vm::spawn`], and copies the command's output to the file
    /// `log`.
    pub fn spawn_logged(&self, command: &str, log: &Path) -> Result<GuestProcess> {
        self.spawn_live(command, Live::logged(log)?)
    }

    fn spawn_live(&self, command: &str, live: Live) -> Result<GuestProcess> {
        self.agent
            .spawn(command, live)
            .map_err(|error| self.explain(&error))
    }

    /// Restarts the guest under the same QEMU process, and waits until the guest accepts commands
    /// again.
    pub fn reboot(&self) -> Result<()> {
        let boots = self.agent.boots();
        self.agent.end(FrameKind::Reboot)?;
        self.agent
            .wait_boot(boots, BOOT)
            .map_err(|error| self.explain(&error))
    }

    /// Switches the guest off and waits for its QEMU to end.
    pub fn shutdown(self) -> Result<()> {
        self.agent.end(FrameKind::PowerOff)?;
        let output = self
            .qemu
            .wait(POWER_OFF)
            .map_err(|error| self.explain(&error))?;
        ensure!(
            output.status == 0,
            "{} VM: QEMU failed{}",
            self.name,
            self.qemu.tail()
        );
        Ok(())
    }

    /// Kills the guest's QEMU with SIGKILL.
    pub fn kill(self) -> Result<()> {
        self.qemu.kill().map(drop)
    }

    /// The path of the file with the output of the guest's serial console.
    pub fn console(&self) -> &Path {
        &self.console
    }

    /// The path of the file with the output of QEMU itself.
    pub fn log(&self) -> &Path {
        self.qemu.log()
    }

    /// Adds the last lines of QEMU's output and of the guest's console to an error.
    fn explain(&self, error: &anyhow::Error) -> anyhow::Error {
        let console = fs::read(&self.console).unwrap_or_default();
        anyhow!(
            "{} VM: {error:#}\n  QEMU:{}\n  console ({}):{}",
            self.name,
            self.qemu.tail(),
            self.console.display(),
            last_lines(&String::from_utf8_lossy(&console), 15)
        )
    }
}

/// Waits for QEMU to connect to the agent's socket. It is an error if QEMU ends before it connects.
fn accept(listener: &UnixListener, qemu: &Process) -> Result<UnixStream> {
    let deadline = Instant::now() + BOOT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut events = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(qemu, PollFlags::IN),
        ];
        match poll(&mut events, Some(&Timespec::try_from(left)?)) {
            Ok(0) => bail!("QEMU does not start{}", qemu.tail()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(io::Error::from(error)).context("cannot wait for QEMU"),
        }
        if !events[0].revents().is_empty() {
            return Ok(listener
                .accept()
                .context("cannot accept QEMU's connection")?
                .0);
        }
        let status = qemu.wait(COMMAND)?.status;
        bail!(
            "QEMU ended with status {status} before the guest started{}",
            qemu.tail()
        );
    }
}

fn joined(prefix: &str, path: impl AsRef<OsStr>) -> OsString {
    let mut all = OsString::from(prefix);
    all.push(path);
    all
}
