//! Uses qcow2 images that qemu-img makes and checks.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hwtests::bench::front_end::FrontEnd;
use hwtests::bench::front_end::virtio_driver::VirtioDriver;
use hwtests::process::Process;
use hwtests::provision::qemu_img;
use hwtests::scenario::{block, end};
use hwtests::tree::Program;
use hwtests::{Lab, Result, ensure, test};

const BLOCK: usize = 12 << 10;
const SLOTS: usize = 32;
const BLOCKS: u64 = 2048;
const SIZE: u64 = BLOCKS * BLOCK as u64;

/// A qcow2 image, and a plain file with the content that the image should have.
struct Disk<'a> {
    lab: &'a Lab,
    qemu_img: Program,
    image: PathBuf,
    plain: PathBuf,
    /// The state of the random number generator of `next_block`.
    state: u64,
}

impl<'a> Disk<'a> {
    /// Makes an image with a chain of backing files, whose names are in `backing`. The backing
    /// files have different content, and the last backing file is raw.
    fn new(lab: &'a Lab, backing: &[&str]) -> Result<Self> {
        let disk = Self {
            lab,
            qemu_img: qemu_img()?,
            image: lab.run.file("disk.qcow2"),
            plain: lab.run.file("plain.img"),
            state: 1,
        };
        File::create(&disk.plain)?.set_len(SIZE)?;
        let mut below: Option<(&str, &str)> = None;
        for (depth, name) in backing.iter().enumerate().rev() {
            let path = lab.run.file(name);
            match below {
                None => fs::write(&path, vec![0xa5; SIZE as usize])?,
                Some(below) => disk.differ(&path, depth + 1, below)?,
            }
            below = Some((name, if below.is_none() { "raw" } else { "qcow2" }));
        }
        disk.create(&disk.image, below)?;
        disk.convert(&disk.image, &disk.plain)?;
        Ok(disk)
    }

    fn qemu_img(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.qemu_img.command();
        command.current_dir(self.lab.run.path()).args(arguments);
        let output = command.output()?;
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        ensure!(
            output.status.success(),
            "qemu-img {arguments:?}: {out}{err}"
        );
        Ok(out.into_owned())
    }

    fn create(&self, path: &Path, below: Option<(&str, &str)>) -> Result<()> {
        let (path, size) = (path.to_string_lossy(), SIZE.to_string());
        let mut arguments = vec!["create", "-q", "-f", "qcow2"];
        if let Some((name, format)) = below {
            arguments.extend(["-b", name, "-F", format]);
        }
        arguments.extend([&*path, &size]);
        self.qemu_img(&arguments).map(drop)
    }

    fn convert(&self, from: &Path, to: &Path) -> Result<()> {
        let (from, to) = (from.to_string_lossy(), to.to_string_lossy());
        self.qemu_img(&["convert", "-f", "qcow2", "-O", "raw", &from, &to])
            .map(drop)
    }

    /// Makes an image with a backing file. The image differs from the backing file only in one MiB,
    /// which begins at the offset of `part` MiB and consists of bytes with the value `part`.
    fn differ(&self, path: &Path, part: usize, below: (&str, &str)) -> Result<()> {
        let (name, format) = below;
        let (path, changed) = (path.to_string_lossy(), "changed.img");
        self.qemu_img(&["convert", "-f", format, "-O", "raw", name, changed])?;
        let file = File::options()
            .write(true)
            .open(self.lab.run.file(changed))?;
        file.write_all_at(&vec![part as u8; 1 << 20], (part as u64) << 20)?;
        let to = ["-f", "raw", "-O", "qcow2", "-B", name, "-F", format];
        self.qemu_img(&[&["convert"], &to[..], &[changed, &path]].concat())
            .map(drop)
    }

    /// Serves the image with these options of `vvu-block`, and connects a front-end.
    fn serve(&self, options: &[&str]) -> Result<(Process, VirtioDriver)> {
        let socket = self.lab.run.file("vu.sock");
        let text = socket.to_string_lossy().into_owned();
        let options = [&["--socket-path", &text, "--format=qcow2"], options].concat();
        let process = block(self.lab, &options, &self.image)?;
        let front_end = VirtioDriver::connect(&socket, BLOCK, SLOTS)?;
        Ok((process, front_end))
    }

    /// Returns the number of a random block, which is less than `end`. The numbers are the same in
    /// each run of the test.
    fn next_block(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1);
        (self.state >> 33) % end
    }

    /// Writes data and zeroes to blocks, both in the image and in the plain file.
    fn use_blocks(&mut self, front_end: &mut VirtioDriver, rounds: usize) -> Result<()> {
        let plain = File::options().write(true).open(&self.plain)?;
        for round in 0..rounds {
            let first = self.next_block(BLOCKS - SLOTS as u64);
            for slot in 0..SLOTS {
                let block = first + slot as u64;
                let byte = match slot % 8 {
                    6 => {
                        front_end.write_zeroes(block, round % 2 == 0, slot)?;
                        0
                    }
                    _ => {
                        let byte = (round + slot) as u8;
                        front_end.buffer(slot).fill(byte);
                        front_end.submit(true, block, slot)?;
                        byte
                    }
                };
                plain.write_all_at(&[byte; BLOCK], block * BLOCK as u64)?;
            }
            front_end.finish(SLOTS)?;
        }
        front_end.flush(0)?;
        front_end.finish(1)
    }

    /// Reads all blocks of the image, and compares them with the plain file.
    fn read_blocks(&self, front_end: &mut VirtioDriver) -> Result<()> {
        let plain = fs::read(&self.plain)?;
        for (number, expected) in plain.chunks(BLOCK * SLOTS).enumerate() {
            let first = (number * SLOTS) as u64;
            for slot in 0..SLOTS {
                front_end.submit(false, first + slot as u64, slot)?;
            }
            front_end.finish(SLOTS)?;
            for (slot, expected) in expected.chunks(BLOCK).enumerate() {
                let block = first + slot as u64;
                ensure!(front_end.buffer(slot) == expected, "block {block} differs");
            }
        }
        Ok(())
    }

    /// Checks with qemu-img that the image is valid and has the content of the plain file.
    fn check(&self) -> Result<()> {
        let (image, plain) = (self.image.to_string_lossy(), self.plain.to_string_lossy());
        self.qemu_img(&["check", "-f", "qcow2", &image])?;
        self.qemu_img(&["compare", "-f", "qcow2", "-F", "raw", &image, &plain])?;
        Ok(())
    }
}

fn use_disk(lab: &Lab, backing: &[&str], options: &[&str]) -> Result<()> {
    let mut disk = Disk::new(lab, backing)?;
    let below: Vec<_> = backing.iter().map(|name| lab.run.file(name)).collect();
    let contents = |path: &PathBuf| Ok(fs::read(path)?);
    let before: Vec<_> = below.iter().map(contents).collect::<Result<_>>()?;
    for _ in 0..2 {
        let (process, mut front_end) = disk.serve(options)?;
        disk.read_blocks(&mut front_end)?;
        disk.use_blocks(&mut front_end, 40)?;
        disk.read_blocks(&mut front_end)?;
        drop(front_end);
        end(&process)?;
        disk.check()?;
    }
    let after: Vec<_> = below.iter().map(contents).collect::<Result<_>>()?;
    ensure!(before == after, "a backing file has changed");
    Ok(())
}

#[test]
fn an_image_without_a_backing_file_works() {
    test("qcow2", |lab| use_disk(lab, &[], &[]));
}

#[test]
fn an_image_with_a_raw_backing_file_works_past_the_page_cache() {
    test("qcow2-raw", |lab| {
        use_disk(lab, &["base.img"], &["--cache=none"])
    });
}

#[test]
fn an_image_with_a_chain_of_backing_files_works_with_write_through() {
    test("qcow2-chain", |lab| {
        let backing = ["middle.qcow2", "low.qcow2", "base.img"];
        use_disk(lab, &backing, &["--cache=writethrough"])
    });
}

#[test]
fn flushed_data_survives_a_kill_under_load() {
    test("qcow2-kill", |lab| {
        let mut disk = Disk::new(lab, &["base.img"])?;
        let (process, mut front_end) = disk.serve(&[])?;
        disk.use_blocks(&mut front_end, 20)?;
        // The following writes are not flushed, so the kill may lose them. All of them write the
        // same byte. So afterwards each byte must have either its flushed value or the value of
        // these writes.
        let unflushed = 0xee;
        for round in 0..20 {
            let first = disk.next_block(BLOCKS - SLOTS as u64);
            for slot in 0..SLOTS {
                front_end.buffer(slot).fill(unflushed);
                front_end.submit(true, first + slot as u64, slot)?;
            }
            // The requests of the last round are in flight when the process is killed.
            match round {
                19 => front_end.kick()?,
                _ => front_end.finish(SLOTS)?,
            }
        }
        process.kill()?;
        let image = disk.image.to_string_lossy().into_owned();
        let mut check = disk.qemu_img.command();
        let output = check.args(["check", "-f", "qcow2", &image]).output()?;
        let report = String::from_utf8_lossy(&output.stdout);
        println!("{report}");
        // qemu-img exits with 3 if there are leaked clusters and no errors. Leaked clusters are
        // allowed here.
        let code = output.status.code();
        ensure!(matches!(code, Some(0 | 3)), "{code:?}: {report}");
        let found = lab.run.file("found.img");
        disk.convert(&disk.image, &found)?;
        let (found, plain) = (fs::read(&found)?, fs::read(&disk.plain)?);
        for (block, (found, plain)) in found.chunks(BLOCK).zip(plain.chunks(BLOCK)).enumerate() {
            let pairs = found.iter().zip(plain);
            let fine = pairs.into_iter().all(|(f, p)| f == p || *f == unflushed);
            ensure!(fine, "block {block} has lost flushed data");
        }
        // When qemu-img has repaired the leaked clusters, the image can be served again.
        let options = ["-r", "leaks", "-q", "-f", "qcow2", &image];
        disk.qemu_img(&[&["check"], &options[..]].concat())?;
        let (process, mut front_end) = disk.serve(&[])?;
        front_end.flush(0)?;
        front_end.finish(1)?;
        drop(front_end);
        end(&process)
    });
}
