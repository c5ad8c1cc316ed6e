//! A Debian guest boots from the disk that `vvu-block --virtio-pci-socket` serves. The guest has no
//! other disk.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use hwtests::debian::{self, Disk};
use hwtests::process::Process;
use hwtests::scenario::{block, end};
use hwtests::vm::COMMAND;
use hwtests::{Lab, Result, ensure};

/// The time limit for all boots of a guest.
const LONG: Duration = Duration::from_secs(400);

/// The line that the guest prints about a disk with default options.
const DEFAULT_DISK: &str = "TEST DISK 0 512 4096 4096 0 2147483648 2147483648 write back 2 queues";

#[test]
fn debian_boots_through_a_bios() {
    test("debian-bios", |lab| {
        let disk = debian::bootable_disk(lab)?;
        let served = Served::start(lab, &disk, &["--serial", "debian-bios"])?;
        let console = served.run(&mut served.machine(2, ""))?;
        let link = "TEST LINK virtio-debian-bios /dev/vda";
        console.expect(&[DEFAULT_DISK, link, "by bios"])?;
        end(&served.process)?;
        disk.check(lab)
    });
}

#[test]
fn debian_boots_through_uefi() {
    test("debian-uefi", |lab| {
        let disk = debian::bootable_disk(lab)?;
        let served = Served::start(lab, &disk, &[])?;
        let mut qemu = served.machine(2, "");
        let console = served.run(qemu.arg("-bios").arg(debian::uefi()?))?;
        console.expect(&[DEFAULT_DISK, "by efi"])?;
        end(&served.process)?;
        disk.check(lab)
    });
}

#[test]
fn debian_boots_behind_an_iommu_with_large_sectors_and_four_queues() {
    test("debian-iommu", |lab| {
        let disk = debian::root_disk(lab)?;
        let options = [
            "--serial",
            "debian-4k",
            "--block-size=4096",
            "--num-queues=4",
        ];
        let served = Served::start(lab, &disk, &options)?;
        let mut qemu = served.machine(4, ",kernel-irqchip=split");
        qemu.args(["-device", "intel-iommu,intremap=on,caching-mode=on"]);
        let arguments = "intel_iommu=on iommu.passthrough=0 no_timer_check";
        served.load_kernel(&mut qemu, debian::KERNEL_ARGUMENTS, arguments)?;
        let console = served.run(&mut qemu)?;
        console.expect(&[
            "TEST DISK 0 4096 4096 4096 0 2147483648 2147483648 write back 4 queues",
            "TEST LINK virtio-debian-4k /dev/vda",
        ])?;
        end(&served.process)?;
        disk.check(lab)
    });
}

#[test]
fn debian_boots_from_a_read_only_disk() {
    test("debian-read-only", |lab| {
        let disk = debian::root_disk(lab)?;
        let sums = || hwtests::tree::quiet(Command::new("sha256sum").arg(&disk.image));
        let before = sums()?;
        let served = Served::start(lab, &disk, &["--read-only"])?;
        let mut qemu = served.machine(2, "");
        served.load_kernel(&mut qemu, debian::READ_ONLY_ARGUMENTS, "")?;
        let console = served.run(&mut qemu)?;
        console.expect(&["TEST DISK 1 512 4096 4096 0 0 0 write back 2 queues"])?;
        end(&served.process)?;
        ensure!(sums()? == before, "the disk was written");
        Ok(())
    });
}

/// Runs a test if debootstrap can run on this machine. Otherwise, prints that the test is skipped.
fn test(name: &str, body: impl FnOnce(&Lab) -> Result<()>) {
    if debian::possible() {
        hwtests::test(name, body);
    } else {
        println!("SKIPPED, debootstrap needs root");
    }
}

/// A disk that `vvu-block` serves.
struct Served<'a> {
    lab: &'a Lab,
    process: Process,
    socket: PathBuf,
}

impl<'a> Served<'a> {
    fn start(lab: &'a Lab, disk: &Disk, options: &[&str]) -> Result<Self> {
        let socket = lab.run.file("blk0.sock");
        let path = socket.to_string_lossy();
        let options = [&["--virtio-pci-socket", &*path], options].concat();
        Ok(Self {
            process: block(lab, &options, &disk.image)?,
            socket: socket.clone(),
            lab,
        })
    }

    /// Prepares the QEMU command for a machine that has only this disk.
    fn machine(&self, cpus: u32, options: &str) -> Command {
        let mut qemu = self.lab.machine.new_qemu.command();
        let device = serde_json::json!({
            "driver": "vfio-user-pci",
            "socket": { "type": "unix", "path": self.socket.to_string_lossy() },
        });
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-cpu", "max", "-smp", &cpus.to_string(), "-m", "512M"])
            .args(["-object", "memory-backend-memfd,id=ram,size=512M,share=on"])
            .arg("-machine")
            .arg(format!("q35,accel=tcg,memory-backend=ram{options}"))
            .args(["-serial", "stdio"]);
        qemu.args(["-device", &device.to_string()]);
        qemu
    }

    /// Makes QEMU load the guests' kernel itself, so that the disk needs no boot loader.
    fn load_kernel(&self, qemu: &mut Command, arguments: &str, more: &str) -> Result<()> {
        let initramfs = debian::initramfs(self.lab)?;
        qemu.arg("-kernel").arg(&self.lab.machine.kernel.image);
        qemu.arg("-initrd").arg(&initramfs);
        qemu.args(["-append", &format!("{arguments} {more}")]);
        Ok(())
    }

    /// Runs the machine until it switches itself off, and returns the text on its console.
    fn run(&self, qemu: &mut Command) -> Result<Console> {
        let guest = Process::spawn("debian.qemu", qemu, self.lab.run.path())?;
        guest.wait_line("TEST PASSED", LONG)?;
        let output = guest.wait(COMMAND)?;
        ensure!(output.status == 0, "QEMU failed{}", guest.tail());
        Ok(Console(output.text()))
    }
}

/// The text that the guest wrote to its console.
struct Console(String);

impl Console {
    /// Checks that each text is contained in some line of the console.
    fn expect(&self, texts: &[&str]) -> Result<()> {
        for text in texts {
            let mut lines = self.0.lines();
            let found = lines.any(|line| line.contains(text));
            ensure!(found, "no line on the console contains {text:?}");
        }
        Ok(())
    }
}
