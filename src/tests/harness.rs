//! Runs a program in tests, with a time limit.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use imago::FormatCreateBuilder;
use rustix::process::Pid;

/// The time limit for each wait. Only a program that hangs reaches the limit.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A temporary folder, which contains the image file `disk.img` of 1 MiB.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("disk.img"), vec![0; 1 << 20]).unwrap();
        Self(folder)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes a qcow2 image with a disk of 1 MiB. The disk is empty, or has the content of a raw
    /// backing file.
    pub fn make_qcow2(&self, name: &str, backing: Option<&Path>) {
        let mut options = std::fs::File::options();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            .open(self.path(name));
        let file = imago::file::File::try_from(file.unwrap()).unwrap();
        let mut builder =
            imago::qcow2::Qcow2::<imago::file::File>::create_builder(file).size(1 << 20);
        if let Some(backing) = backing {
            builder = builder.backing(backing.display().to_string(), "raw".to_owned());
        }
        builder.create().unwrap();
    }

    /// The sorted names of the files in the folder.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Changes the owner of the folder and its files to the user `user` and the group with the same
    /// id.
    pub fn give_to(&self, user: u32) {
        let paths = self.names().into_iter().map(|name| self.path(&name));
        for path in paths.chain([self.0.path().to_owned()]) {
            std::os::unix::fs::chown(path, Some(user), Some(user)).unwrap();
        }
    }

    /// A command that runs in this folder.
    pub fn command(&self, program: &str, arguments: &str) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments.split_whitespace())
            .current_dir(self.0.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a program that ends without a signal from the test, and returns its output.
    pub fn run(&self, program: &str, arguments: &str) -> Output {
        Running::start(self.command(program, arguments)).output()
    }

    /// Runs a program, and asserts that it fails with this exit code. Its stderr must contain all
    /// of `words`, and must be one line if the exit code is 1. The program must not leave new files
    /// behind.
    pub fn fails(&self, program: &str, arguments: &str, code: i32, words: &[&str]) {
        let before = self.names();
        let output = self.run(program, arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments}: {stderr}");
        for word in words {
            assert!(
                stderr.contains(word),
                "{arguments}: no {word:?} in {stderr:?}"
            );
        }
        if code == 1 {
            assert_eq!(stderr.lines().count(), 1, "{arguments}: {stderr}");
        }
        assert!(output.stdout.is_empty(), "{arguments}: not ready");
        assert_eq!(self.names(), before, "{arguments}: leaves something behind");
    }
}

/// A running program. Dropping this value kills the program if it still runs.
pub struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = lines(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next line that the program writes to stdout.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line on stdout")
    }

    /// The process id of the program.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends the signal with this number to the program.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the child was not waited for, so the process id still belongs to the child.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Waits until the program has ended. This method does not read the program's stderr, so the
    /// test has to redirect it.
    pub fn status(mut self) -> ExitStatus {
        self.rest_of_stdout();
        self.child.wait().unwrap()
    }

    /// Reads the remaining lines of stdout, until the program has ended.
    fn rest_of_stdout(&self) -> Vec<u8> {
        let mut stdout = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => stdout.extend(line.into_bytes().into_iter().chain([b'\n'])),
                Err(RecvTimeoutError::Disconnected) => return stdout,
                Err(RecvTimeoutError::Timeout) => panic!("the program does not end"),
            }
        }
    }

    /// Waits until the program has ended, and returns its output and exit status.
    pub fn output(mut self) -> Output {
        let stdout = self.rest_of_stdout();
        let mut stderr = Vec::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_end(&mut stderr)
            .unwrap();
        let status = self.child.wait().unwrap();
        Output {
            status,
            stdout,
            stderr,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines that come through a pipe.
pub fn lines(pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut lines = BufReader::new(pipe).lines().map_while(Result::ok);
        lines.try_for_each(|line| sender.send(line))
    });
    receiver
}

/// The children of a program's supervisor, in the order in which it adopted them: the process in
/// the jail, and then the process that flushes the image, if there is one.
pub fn children(pid: u32) -> Vec<Pid> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
    children.filter_map(Pid::from_raw).collect()
}

/// Whether a process ends.
pub fn ends(process: &OwnedFd) -> bool {
    ends_in(process, PATIENCE)
}

/// Whether a process ends in this time.
pub fn ends_in(process: &OwnedFd, time: Duration) -> bool {
    let ended = ipc::poll([ipc::Interest::readable(process)], Some(time));
    ended.unwrap() == [true]
}

/// Whether a process accepts connections on the socket at `path`.
pub fn is_served(path: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(path).is_ok()
}
