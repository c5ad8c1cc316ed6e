use super::{Locked, lock};
use crate::{Image, ImageError, OpenOptions};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

fn image() -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    file
}

fn open(path: &Path, read_only: bool, lock: bool) -> Result<Image, ImageError> {
    let options = OpenOptions {
        read_only,
        lock,
        lock_patience: Duration::ZERO,
        ..OpenOptions::default()
    };
    Image::open(path, options)
}

/// Opens an image that was closed before. Repeats the attempt for up to 30 seconds. The old locks
/// may still exist, because a process that another test starts inherits the open files for a
/// moment.
fn reopen(path: &Path, read_only: bool) -> Image {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match open(path, read_only, true) {
            Ok(image) => return image,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        thread::yield_now();
    }
}

#[test]
fn an_image_has_one_writer_or_many_readers() {
    let file = image();
    let path = file.path();
    let writer = open(path, false, true).unwrap();
    for read_only in [false, true] {
        let error = open(path, read_only, true).unwrap_err();
        assert!(matches!(error, ImageError::Written(_)), "{error}");
    }
    open(path, false, false).unwrap();
    drop(writer);

    let readers = [(); 2].map(|()| reopen(path, true));
    let error = open(path, false, true).unwrap_err();
    assert!(matches!(error, ImageError::InUse(_)), "{error}");
    drop(readers);
    reopen(path, false);
}

/// Opens an image in another thread, which waits for at most `lock_patience` for the lock.
fn open_within(lock_patience: Duration, path: &Path) -> JoinHandle<Result<Image, ImageError>> {
    let options = OpenOptions {
        lock_patience,
        ..OpenOptions::default()
    };
    let path = path.to_owned();
    thread::spawn(move || Image::open(path, options))
}

#[test]
fn an_image_whose_user_leaves_is_waited_for() {
    let file = image();
    let writer = open(file.path(), false, true).unwrap();
    let second = open_within(Duration::from_secs(30), file.path());
    // A program with less patience is refused meanwhile.
    let impatient = open_within(Duration::from_millis(100), file.path());
    let refused = impatient.join().unwrap().unwrap_err();
    assert!(matches!(refused, ImageError::Written(_)), "{refused}");
    assert!(!second.is_finished());
    drop(writer);
    second.join().unwrap().unwrap();
}

#[test]
fn a_user_that_stays_is_named_when_the_patience_is_over() {
    const PATIENCE: Duration = Duration::from_millis(200);
    let file = image();
    let _writer = open(file.path(), false, true).unwrap();
    let begin = Instant::now();
    let refused = open_within(PATIENCE, file.path()).join().unwrap();
    assert!(
        matches!(refused, Err(ImageError::Written(_))),
        "{refused:?}"
    );
    assert!(begin.elapsed() >= PATIENCE, "{:?}", begin.elapsed());
}

#[test]
fn a_file_that_was_refused_has_no_locks() {
    let file = image();
    let writer = open(file.path(), false, true).unwrap();
    let refused = File::options().read(true).write(true).open(file.path());
    let refused = refused.unwrap();
    let locked = lock(&refused, false, Duration::ZERO).unwrap();
    assert_eq!(locked, Locked::OtherWriter);
    drop(writer);
    reopen(file.path(), false);
}

/// Whether QEMU is installed. If not, prints that the test is skipped.
fn has_qemu_io() -> bool {
    let found = Command::new("qemu-io").arg("--version").output().is_ok();
    if !found {
        println!("SKIPPED, because there is no qemu-io (Debian's package qemu-utils)");
    }
    found
}

fn qemu_io(path: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("qemu-io");
    command.args(["-f", "raw"]).args(arguments).arg(path);
    command
}

#[test]
fn qemu_does_not_open_an_image_for_writing_that_is_open_here() {
    if !has_qemu_io() {
        return;
    }
    let file = image();
    let run = |arguments: &[&str]| qemu_io(file.path(), arguments).output().unwrap();
    let writer = open(file.path(), false, true).unwrap();
    let refused = run(&["-c", "write 0 512"]);
    assert!(!refused.status.success());
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains("lock"), "{error}");
    // A QEMU process that only reads the image conflicts with neither a writer nor a reader in this
    // process.
    assert!(run(&["-r", "-c", "read 0 512"]).status.success());
    drop(writer);
    let _reader = reopen(file.path(), true);
    assert!(run(&["-r", "-c", "read 0 512"]).status.success());
    assert!(!run(&["-c", "write 0 512"]).status.success());
}

#[test]
fn an_image_that_qemu_writes_is_refused() {
    if !has_qemu_io() {
        return;
    }
    let file = image();
    for (arguments, allowed) in [(&[][..], false), (&["-r"], true)] {
        let mut qemu = qemu_io(file.path(), arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = qemu.stdin.take().unwrap();
        // When QEMU answers the command `length`, it has opened the image.
        input.write_all(b"length\n").unwrap();
        let output = qemu.stdout.as_mut().unwrap();
        output.read_exact(&mut [0]).unwrap();
        let mut answer = [0; 1];
        while answer != *b"\n" {
            output.read_exact(&mut answer).unwrap();
        }
        for read_only in [false, true] {
            if allowed {
                reopen(file.path(), read_only);
            } else {
                let error = open(file.path(), read_only, true).unwrap_err();
                assert!(matches!(error, ImageError::Written(_)), "{error}");
            }
        }
        input.write_all(b"quit\n").unwrap();
        assert!(qemu.wait().unwrap().success());
        reopen(file.path(), false);
    }
}
