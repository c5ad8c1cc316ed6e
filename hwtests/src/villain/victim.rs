//! A program that is attacked.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::device_vm::DeviceVm;
use super::shared::{SIZE, Shared};
use super::target::Target;
use super::{driver, front_end};
use crate::binaries;
use crate::process::Process;
use crate::rundir::RunDir;

/// The size of the disk in bytes.
const DISK: u64 = 64 << 20;

/// The time limit for a program to become ready.
const READY: Duration = Duration::from_secs(20);

/// How a program is started.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Further options, separated by spaces.
    pub options: &'static str,
    /// Whether nobody reads the log of the program. Its stderr is then a pipe that is full.
    pub unread_log: bool,
}

/// A running program and its well-behaved peer, if it has one.
#[derive(Debug)]
pub struct Victim<'a> {
    /// The process.
    pub process: Process,
    /// The device VM of a proxy that its front-end attacks.
    pub device: Option<DeviceVm>,
    target: Target,
    run: &'a RunDir,
}

impl<'a> Victim<'a> {
    /// Starts a program, and a device VM if that is well-behaved.
    pub fn start(target: Target, setting: Setting, run: &'a RunDir) -> Result<Self> {
        let mut command = command(target, setting, run)?;
        let process = Process::spawn(program(target), &mut command, run.path())?;
        process.wait_line("ready:", READY)?;
        let mut victim = Self {
            process,
            device: None,
            target,
            run,
        };
        if target == Target::ProxyByFrontEnd {
            victim.device = Some(victim.device_vm()?);
        }
        Ok(victim)
    }

    /// The socket of the attacking peer.
    pub fn socket(&self) -> PathBuf {
        match self.target {
            Target::Socket | Target::ProxyByFrontEnd => front_end_socket(self.run),
            Target::Function | Target::ProxyByClient => client_socket(self.run),
        }
    }

    /// Memory that a front-end may share: for a proxy, the proxy's own file.
    pub fn shared(&self) -> Result<Shared> {
        match self.target {
            Target::Socket | Target::Function => Shared::new(),
            Target::ProxyByFrontEnd | Target::ProxyByClient => Shared::open(&memory(self.run)),
        }
    }

    /// A file for the attack in a folder that is on a disk.
    pub fn file(&self, name: &str) -> PathBuf {
        self.run.file(name)
    }

    /// Checks that a well-behaved peer is served, as it would be without the attack before.
    pub fn check_served(&self) -> Result<()> {
        let socket = front_end_socket(self.run);
        match self.target {
            Target::Socket | Target::ProxyByFrontEnd => front_end::check(&socket, self.shared()?),
            Target::Function => driver::check(&client_socket(self.run)),
            Target::ProxyByClient => {
                let _device = self.device_vm()?;
                front_end::check(&socket, self.shared()?)
            }
        }
    }

    fn device_vm(&self) -> Result<DeviceVm> {
        DeviceVm::start(&client_socket(self.run), &image(self.run)?)
    }
}

fn program(target: Target) -> &'static str {
    match target {
        Target::Socket | Target::Function => "vvu-block",
        Target::ProxyByFrontEnd | Target::ProxyByClient => "vvu-proxy",
    }
}

fn command(target: Target, setting: Setting, run: &RunDir) -> Result<Command> {
    let program = binaries::build("vvu-block", program(target))?;
    let mut command = match setting.unread_log {
        true => unread(&program, &run.file("unread"))?,
        false => Command::new(program),
    };
    command
        .arg("--sandbox=full")
        .args(setting.options.split_whitespace());
    match target {
        Target::Socket => {
            command
                .arg("--socket-path")
                .arg(front_end_socket(run))
                .arg(image(run)?);
        }
        Target::Function => {
            command
                .arg("--virtio-pci-socket")
                .arg(client_socket(run))
                .arg(image(run)?);
        }
        Target::ProxyByFrontEnd | Target::ProxyByClient => {
            let memory = memory(run);
            // A front-end may have truncated the file.
            let _ = std::fs::remove_file(&memory);
            command.arg("--socket-path").arg(front_end_socket(run));
            command.arg("--vfio-user-path").arg(client_socket(run));
            command
                .arg("--memory")
                .arg(format!("{},size={SIZE}", memory.display()));
        }
    }
    Ok(command)
}

/// A command that runs a program whose stderr is a full pipe that nobody reads.
fn unread(program: &Path, pipe: &Path) -> Result<Command> {
    if !pipe.exists() {
        mknodat(CWD, pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    }
    let mut command = Command::new("sh");
    command.args(["-c", FILL, "sh"]).arg(pipe).arg(program);
    Ok(command)
}

/// Opens the first argument as stderr, fills it, and runs the other arguments as a command. A pipe
/// that is open for reading and writing needs no reader.
const FILL: &str = r#"
exec 2<>"$1"
dd if=/dev/zero of="$1" oflag=nonblock bs=4096 2>/dev/null
shift
exec "$@"
"#;

fn front_end_socket(run: &RunDir) -> PathBuf {
    run.file("vu.sock")
}

fn client_socket(run: &RunDir) -> PathBuf {
    run.file("vfio.sock")
}

fn memory(run: &RunDir) -> PathBuf {
    run.memory("villain")
}

fn image(run: &RunDir) -> Result<PathBuf> {
    let path = run.file("disk.img");
    if path.exists() {
        return Ok(path);
    }
    run.image("disk.img", DISK)
        .context("the disk of the villain")
}
