//! Starts those who serve an image.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::front_end::Kind;
use super::plan::{Medium, Options, Peer};
use crate::binaries;
use crate::process::{Process, wait_file};
use crate::provision::BenchmarkTools;
use crate::rundir::RunDir;
use crate::tree::Program;

/// Size of an image in bytes.
const IMAGE_SIZE: u64 = 256 << 20;

/// Size of the file that is the memory of a front-end which has just one.
const MEMORY_SIZE: u64 = 16 << 20;

/// How long a program may take to serve.
const READY: Duration = Duration::from_secs(30);

/// An image and who serves it.
pub struct Served {
    /// Who it is.
    pub peer: Peer,
    /// Where the image is.
    pub medium: Medium,
    /// The image.
    pub image: PathBuf,
    /// The vhost-user socket; there is none for a local run.
    pub socket: Option<PathBuf>,
    /// Who connects to it.
    pub front_end: Kind,
    /// For local runs.
    pub fio: Program,
    processes: Vec<Process>,
}

impl Served {
    /// Makes an image for each peer and starts them all; nobody shares an image.
    pub fn start_all(
        options: &Options,
        medium: Medium,
        tools: &BenchmarkTools,
        run: &RunDir,
    ) -> Result<Vec<Self>> {
        let start = |peer| Self::start(peer, medium, tools, run);
        options.peers(medium).map(start).collect()
    }

    /// Makes an image for a peer and starts it.
    pub fn start(peer: Peer, medium: Medium, tools: &BenchmarkTools, run: &RunDir) -> Result<Self> {
        let name = format!("{}-{}", peer.name(), medium.name());
        let image = match medium {
            Medium::Tmpfs => run.memory(&name),
            Medium::Cached | Medium::Direct => run.file(&format!("{name}.img")),
        };
        fill(&image)?;
        let front_end = match peer {
            Peer::Socket | Peer::Pci => Kind::OneFile(run.memory(&format!("{name}-memory"))),
            Peer::Packed => Kind::Packed,
            _ => Kind::VirtioDriver,
        };
        let mut served = Self {
            peer,
            medium,
            image,
            socket: None,
            front_end,
            fio: tools.fio.clone(),
            processes: Vec::new(),
        };
        served.serve(&name, tools, run)?;
        Ok(served)
    }

    fn serve(&mut self, name: &str, tools: &BenchmarkTools, run: &RunDir) -> Result<()> {
        let socket = run.file(&format!("{name}.sock"));
        if let (Peer::Socket, Kind::OneFile(memory)) = (self.peer, &self.front_end) {
            File::create_new(memory)?.set_len(MEMORY_SIZE)?;
        }
        let command = match (self.peer, &self.front_end) {
            (Peer::Local, _) => return Ok(()),
            (Peer::Pci, Kind::OneFile(memory)) => {
                let function = run.file(&format!("{name}-vfio.sock"));
                let command = proxy_command(&socket, &function, memory)?;
                self.spawn(&format!("{name}-proxy"), command, &function, run)?;
                self.function_command(&function)?
            }
            _ => self.command(&socket, tools)?,
        };
        self.spawn(name, command, &socket, run)?;
        self.socket = Some(socket);
        Ok(())
    }

    /// Starts a program that serves once there is this socket.
    fn spawn(&mut self, name: &str, command: Command, socket: &Path, run: &RunDir) -> Result<()> {
        let process = Process::spawn(name, &mut { command }, run.path())?;
        match process.name().starts_with("vvu") {
            true => process.wait_line("ready:", READY).map(drop)?,
            false => wait_file(socket, READY).with_context(|| process.tail())?,
        }
        self.processes.push(process);
        Ok(())
    }

    /// What serves the image at a vhost-user socket.
    pub fn command(&self, socket: &Path, tools: &BenchmarkTools) -> Result<Command> {
        match self.peer {
            Peer::Qemu => Ok(self.qemu_command(&tools.storage_daemon, "io_uring", socket)),
            Peer::QemuThreads => Ok(self.qemu_command(&tools.storage_daemon, "threads", socket)),
            _ => {
                let mut command = self.our_command()?;
                command.arg("--socket-path").arg(socket);
                Ok(command)
            }
        }
    }

    /// What serves the image through the VVU function that is at a vfio-user socket.
    fn function_command(&self, socket: &Path) -> Result<Command> {
        let mut command = self.our_command()?;
        command.arg("--pci");
        command.arg(format!("vfio-user:{}", socket.display()));
        Ok(command)
    }

    fn our_command(&self) -> Result<Command> {
        let mut command = Command::new(binaries::build("vvu-block", "vvu-block")?);
        command.arg(&self.image);
        if self.medium == Medium::Direct {
            command.arg("--cache=none");
        }
        Ok(command)
    }

    fn qemu_command(&self, program: &Program, aio: &str, socket: &Path) -> Command {
        let direct = if self.medium == Medium::Direct {
            "on"
        } else {
            "off"
        };
        let mut command = program.command();
        command.arg("--blockdev").arg(format!(
            "driver=file,node-name=disk,filename={},aio={aio},cache.direct={direct}",
            self.image.display()
        ));
        command.arg("--export").arg(format!(
            "type=vhost-user-blk,id=export,node-name=disk,writable=on,addr.type=unix,addr.path={}",
            socket.display()
        ));
        command
    }

    /// Ends those who serve it.
    pub fn end(&self) -> Result<()> {
        for process in &self.processes {
            process.terminate(READY)?;
        }
        Ok(())
    }

    /// The processes that serve it.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::id).collect()
    }
}

/// A VVU function whose front-end has its memory in a file.
fn proxy_command(socket: &Path, function: &Path, memory: &Path) -> Result<Command> {
    let mut command = Command::new(binaries::build("vvu-block", "vvu-proxy")?);
    command.arg("--socket-path").arg(socket);
    command.arg("--vfio-user-path").arg(function);
    command.arg("--memory");
    command.arg(format!("{},size={MEMORY_SIZE}", memory.display()));
    Ok(command)
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.image);
    }
}

/// Writes an image full of noise, so that nothing is sparse or compresses, and reads it once.
fn fill(image: &Path) -> Result<()> {
    let context = || format!("cannot make the image {}", image.display());
    let mut noise = vec![0; 1 << 20];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut noise))
        .context("cannot read /dev/urandom")?;
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .open(image)
        .with_context(context)?;
    for _ in 0..IMAGE_SIZE >> 20 {
        file.write_all(&noise).with_context(context)?;
    }
    // Else the kernel would write it out while others are measured.
    file.sync_all().with_context(context)
}
