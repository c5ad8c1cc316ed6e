//! Starts the programs that serve an image in a benchmark.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::front_end::Kind;
use super::image::Image;
use super::plan::{Medium, Peer};
use super::setting::Setting;
use crate::process::{Process, wait_file};
use crate::rundir::RunDir;
use crate::tree::Program;

/// The size in bytes of the memory file of a [`Kind::OneFile`] front-end.
const MEMORY_SIZE: u64 = 16 << 20;

/// The number of queues that a back-end offers. Each front-end uses only one of these queues.
pub const QUEUES: u16 = 16;

/// The time limit for a program to become ready.
const READY: Duration = Duration::from_secs(30);

/// An image, and the programs that serve it.
pub struct Served {
    /// The peer that serves the image.
    pub peer: Peer,
    /// The medium of the image, such as tmpfs.
    pub medium: Medium,
    /// The image, which all peers share.
    pub image: Rc<Image>,
    /// The path of the vhost-user socket, or `None` if fio uses the image itself.
    pub socket: Option<PathBuf>,
    /// The kind of front-end that connects to the socket.
    pub front_end: Kind,
    /// The fio program, which can use the image without a back-end.
    pub fio: Program,
    processes: Vec<Process>,
}

impl Served {
    /// Makes an image on `medium`, and starts peers that serve this image.
    pub fn start_all(
        peers: impl IntoIterator<Item = Peer>,
        medium: Medium,
        setting: &Setting,
    ) -> Result<Vec<Self>> {
        let image = Rc::new(Image::new("disk", medium, &setting.run)?);
        let start = |peer| Self::start(peer, medium, image.clone(), setting);
        peers.into_iter().map(start).collect()
    }

    /// Starts a peer that serves an image.
    fn start(peer: Peer, medium: Medium, image: Rc<Image>, setting: &Setting) -> Result<Self> {
        let (name, run) = (format!("{}-{}", peer.name(), medium.name()), &setting.run);
        let front_end = match peer {
            Peer::Socket | Peer::Pci | Peer::OtherPci => {
                Kind::OneFile(run.memory(&format!("{name}-memory")))
            }
            Peer::Packed => Kind::Packed,
            _ => Kind::VirtioDriver,
        };
        let mut served = Self {
            peer,
            medium,
            image,
            socket: None,
            front_end,
            fio: setting.tools.fio.clone(),
            processes: Vec::new(),
        };
        served.serve(&name, setting)?;
        Ok(served)
    }

    fn serve(&mut self, name: &str, setting: &Setting) -> Result<()> {
        let run = &setting.run;
        let socket = run.file(&format!("{name}.sock"));
        if let (Peer::Socket, Kind::OneFile(memory)) = (self.peer, &self.front_end) {
            File::create_new(memory)?.set_len(MEMORY_SIZE)?;
        }
        let command = match &self.front_end {
            _ if self.peer == Peer::Local => return Ok(()),
            Kind::OneFile(memory) if self.peer.is_behind_proxy() => {
                let function = run.file(&format!("{name}-vfio.sock"));
                let command = self.proxy_command(&socket, &function, memory, setting)?;
                self.spawn(&format!("{name}-proxy"), command, &function, run)?;
                self.function_command(&function, setting)?
            }
            _ => self.command(&socket, setting)?,
        };
        self.spawn(name, command, &socket, run)?;
        self.socket = Some(socket);
        Ok(())
    }

    /// Starts a program and waits until it is ready. Our programs print a line when they are ready.
    /// Other programs create the file `socket` when they are ready.
    fn spawn(&mut self, name: &str, command: Command, socket: &Path, run: &RunDir) -> Result<()> {
        let process = Process::spawn(name, &mut { command }, run.path())?;
        if process.name().starts_with("vvu") {
            process.wait_line("ready:", READY)?;
        } else {
            wait_file(socket, READY).with_context(|| process.tail())?;
        }
        self.processes.push(process);
        Ok(())
    }

    /// The command that serves the image at a vhost-user socket.
    pub fn command(&self, socket: &Path, setting: &Setting) -> Result<Command> {
        let daemon = &setting.tools.storage_daemon;
        match self.peer {
            Peer::Qemu => Ok(self.qemu_command(daemon, "io_uring", socket)),
            Peer::QemuThreads => Ok(self.qemu_command(daemon, "threads", socket)),
            _ => {
                let mut command = self.our_command(setting)?;
                command.arg("--socket-path").arg(socket);
                Ok(command)
            }
        }
    }

    /// The command that serves the image through the VVU function at a vfio-user socket.
    fn function_command(&self, socket: &Path, setting: &Setting) -> Result<Command> {
        let mut command = self.our_command(setting)?;
        command.arg("--pci");
        command.arg(format!("vfio-user:{}", socket.display()));
        Ok(command)
    }

    /// The `vvu-block` command with the options that are the same for all transports. Older
    /// versions of `vvu-block` have to know these options, too, because the other build may be an
    /// older version.
    fn our_command(&self, setting: &Setting) -> Result<Command> {
        let mut command = Command::new(setting.program(self.peer, "vvu-block")?);
        command.arg(self.image.path()).arg("--lock=off");
        command.arg(format!("--num-queues={QUEUES}"));
        if self.medium == Medium::Direct {
            command.arg("--cache=none");
        }
        Ok(command)
    }

    /// The command that starts `vvu-proxy`. The proxy offers a VVU function, whose front-end has
    /// its memory in the file `memory`.
    fn proxy_command(
        &self,
        socket: &Path,
        function: &Path,
        memory: &Path,
        setting: &Setting,
    ) -> Result<Command> {
        let mut command = Command::new(setting.program(self.peer, "vvu-proxy")?);
        command.arg("--socket-path").arg(socket);
        command.arg("--vfio-user-path").arg(function);
        command.arg("--memory");
        command.arg(format!("{},size={MEMORY_SIZE}", memory.display()));
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
            "driver=file,node-name=disk,filename={},aio={aio},cache.direct={direct},\
             locking=off",
            self.image.path().display()
        ));
        command.arg("--export").arg(format!(
            "type=vhost-user-blk,id=export,node-name=disk,writable=on,num-queues={QUEUES},\
             addr.type=unix,addr.path={}",
            socket.display()
        ));
        command
    }

    /// Ends the processes that serve the image.
    pub fn end(&self) -> Result<()> {
        for process in &self.processes {
            process.terminate(READY)?;
        }
        Ok(())
    }

    /// The ids of the processes that serve the image.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::id).collect()
    }
}
