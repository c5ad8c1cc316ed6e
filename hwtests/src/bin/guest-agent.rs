//! The agent, which is the first process of a test guest. It sets up the system, and runs commands
//! that the host sends.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hwtests::initramfs::MODULES;
use hwtests::process::code;
use hwtests::protocol::{Frame, FrameKind, PORT};
use rustix::mount::MountFlags;
use rustix::process::{Pid, Signal};
use rustix::system::RebootCommand;

const MOUNTS: [(&str, &str); 7] = [
    ("/proc", "proc"),
    ("/sys", "sysfs"),
    ("/dev", "devtmpfs"),
    ("/dev/pts", "devpts"),
    ("/dev/shm", "tmpfs"),
    ("/run", "tmpfs"),
    ("/tmp", "tmpfs"),
];

fn main() -> Result<()> {
    ensure!(
        std::process::id() == 1,
        "this program has to be the first process of a test guest"
    );
    if let Err(error) = run() {
        // The message is written to the console, which the host logs.
        eprintln!("guest agent: {error:#}");
    }
    end(RebootCommand::PowerOff);
    Ok(())
}

fn run() -> Result<()> {
    mount_all()?;
    load_modules()?;
    let port = open_port()?;
    let agent = Agent {
        port: port.try_clone()?,
        out: Arc::new(Mutex::new(port)),
    };
    agent.serve()
}

fn mount_all() -> Result<()> {
    for (path, kind) in MOUNTS {
        fs::create_dir_all(path).with_context(|| format!("cannot create {path}"))?;
        rustix::mount::mount(kind, path, kind, MountFlags::empty(), None)
            .with_context(|| format!("cannot mount {path}"))?;
    }
    Ok(())
}

fn load_modules() -> Result<()> {
    let list = fs::read_to_string(format!("/{MODULES}")).context("cannot read the module list")?;
    for path in list.lines() {
        let file = File::open(path).with_context(|| format!("cannot open {path}"))?;
        rustix::system::finit_module(&file, c"", 0)
            .with_context(|| format!("cannot load {path}"))?;
    }
    Ok(())
}

/// Opens the virtio serial port to the host. The function may have to wait, because the kernel gets
/// the name of the port only some time after the driver has started.
fn open_port() -> Result<File> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(path) = find_port() {
            let file = OpenOptions::new().read(true).write(true).open(&path);
            return file.with_context(|| format!("cannot open {}", path.display()));
        }
        if Instant::now() > deadline {
            bail!("no virtio serial port has the name {PORT}");
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

fn find_port() -> Option<PathBuf> {
    let ports = fs::read_dir("/sys/class/virtio-ports").ok()?.flatten();
    let port = ports.into_iter().find(|port| {
        fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == PORT)
    })?;
    let device = PathBuf::from("/dev").join(port.file_name());
    device.exists().then_some(device)
}

fn end(how: RebootCommand) {
    rustix::fs::sync();
    if let Err(error) = rustix::system::reboot(how) {
        eprintln!("guest agent: cannot power off or restart: {error}");
    }
}

type Out = Arc<Mutex<File>>;

/// Sends a whole frame to the host. If the frame cannot be sent, prints the error, because the
/// agent has no other way to report it.
fn send(out: &Out, frame: &Frame) {
    let mut port = out.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = frame.write_to(&mut *port) {
        eprintln!("guest agent: cannot send: {error}");
    }
}

struct Agent {
    port: File,
    out: Out,
}

impl Agent {
    fn serve(mut self) -> Result<()> {
        let groups: Arc<Mutex<HashMap<u32, Pid>>> = Arc::default();
        send(&self.out, &Frame::new(FrameKind::Hello, 0, []));
        loop {
            let frame = Frame::read_from(&mut self.port).context("cannot read from the host")?;
            match frame.kind {
                FrameKind::Run => run_command(&frame, &self.out, &groups),
                FrameKind::Signal => {
                    let signal = Signal::from_named_raw(frame.as_number()?);
                    let groups = groups.lock().unwrap_or_else(PoisonError::into_inner);
                    if let (Some(signal), Some(&group)) = (signal, groups.get(&frame.id)) {
                        let _ = rustix::process::kill_process_group(group, signal);
                    }
                }
                FrameKind::PowerOff => return Ok(()),
                FrameKind::Reboot => {
                    // While this thread holds the lock, no other thread can send a frame. So the
                    // next frame to the host is the Hello of the next boot.
                    let _no_frames = self.out.lock().unwrap_or_else(PoisonError::into_inner);
                    end(RebootCommand::Restart);
                    bail!("the guest did not restart");
                }
                FrameKind::Hello | FrameKind::Stdout | FrameKind::Stderr | FrameKind::Exit => {
                    bail!("the host sent a frame of the guest: {:?}", frame.kind)
                }
            }
        }
    }
}

fn run_command(frame: &Frame, out: &Out, groups: &Arc<Mutex<HashMap<u32, Pid>>>) {
    let id = frame.id;
    let script = String::from_utf8_lossy(&frame.data);
    let started = Command::new("/bin/sh")
        .args(["-c", &script])
        .env_clear()
        .envs([("PATH", "/usr/bin"), ("HOME", "/root"), ("TERM", "dumb")])
        .current_dir("/root")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let child = match started {
        Ok(child) => child,
        Err(error) => {
            send(
                out,
                &Frame::new(
                    FrameKind::Stderr,
                    id,
                    format!("cannot start a shell: {error}\n"),
                ),
            );
            send(out, &Frame::number(FrameKind::Exit, id, 127));
            return;
        }
    };
    groups
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(id, Pid::from_child(&child));
    let (out, groups) = (out.clone(), groups.clone());
    thread::spawn(move || {
        let status = finish(child, id, &out);
        groups
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
        send(&out, &Frame::number(FrameKind::Exit, id, status));
    });
}

/// Forwards a command's output until the command ends, and returns the command's exit status.
fn finish(mut child: Child, id: u32, out: &Out) -> i32 {
    let stdout = child
        .stdout
        .take()
        .map(|pipe| forward(pipe, FrameKind::Stdout, id, out));
    let stderr = child
        .stderr
        .take()
        .map(|pipe| forward(pipe, FrameKind::Stderr, id, out));
    for copy in stdout.into_iter().chain(stderr) {
        let _ = copy.join();
    }
    child.wait().map_or(127, code)
}

fn forward(
    mut pipe: impl Read + Send + 'static,
    kind: FrameKind,
    id: u32,
    out: &Out,
) -> JoinHandle<()> {
    let out = out.clone();
    thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            send(&out, &Frame::new(kind, id, &buffer[..length]));
        }
        let _ = std::io::stderr().flush();
    })
}
