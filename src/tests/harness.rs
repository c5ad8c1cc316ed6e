//! Runs a program, with a bound on how long that may take.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use imago::FormatCreateBuilder;

/// How long anything may take. Nothing comes near it unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A folder with an image of 1 MiB in it.
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

    /// Makes a qcow2 image with an empty disk of 1 MiB.
    pub fn make_qcow2(&self, name: &str) {
        let mut options = std::fs::File::options();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            .open(self.path(name));
        let file = imago::file::File::try_from(file.unwrap()).unwrap();
        imago::qcow2::Qcow2::<imago::file::File>::create_builder(file)
            .size(1 << 20)
            .create()
            .unwrap();
    }

    /// What is in it, in order.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Makes a user and its group own the folder and all in it.
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

    /// Runs a program that is expected to end by itself.
    pub fn run(&self, program: &str, arguments: &str) -> Output {
        Running::start(self.command(program, arguments)).output()
    }

    /// Runs a program that is to fail, with this exit code and one line on stderr that has all of
    /// these words, and that leaves nothing behind.
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

/// A program that runs. It is killed if it still does when this is dropped.
pub struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    /// The next line on stdout.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line on stdout")
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, by number.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the child was not waited for, so the process id is still its own.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Waits until the program has ended.
    pub fn output(mut self) -> Output {
        let mut stdout = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            stdout.extend(line.into_bytes());
            stdout.push(b'\n');
        }
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

/// Whether somebody listens on a socket.
pub fn is_served(path: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(path).is_ok()
}
