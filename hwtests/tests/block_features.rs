//! A Linux guest uses the features of the disk, such as discard and the write cache.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use hwtests::process::Process;
use hwtests::scenario::{DISK_SIZE, MEMORY, block, end};
use hwtests::vm::{Memory, Vm, VmBuilder};
use hwtests::workload::{DISK, check_files, check_image, fio_verify, write_files};
use hwtests::{Lab, Result, ensure, test};

const MIB: u64 = 1 << 20;

/// The space that the host's file system may need to record the holes of an image, in bytes.
const SLACK: u64 = 64 << 10;

/// The transport between the disk and its guest.
#[derive(Clone, Copy)]
enum Carrier {
    VhostUser,
    VirtioPci,
}

/// A sibling VM, the back-end of its disk, and the disk's image.
struct Disk {
    image: PathBuf,
    back_end: Process,
    sibling: Vm,
}

impl Disk {
    /// Serves an image from [`full_image`] to a sibling VM.
    fn start(lab: &Lab, options: &[&str]) -> Result<Self> {
        Self::serve(lab, full_image(lab)?, options)
    }

    fn serve(lab: &Lab, image: PathBuf, options: &[&str]) -> Result<Self> {
        Self::carried(lab, Carrier::VhostUser, image, options)
    }

    fn carried(lab: &Lab, carrier: Carrier, image: PathBuf, options: &[&str]) -> Result<Self> {
        let socket = lab.run.file("disk.sock");
        let text = socket.to_string_lossy().into_owned();
        let option = match carrier {
            Carrier::VhostUser => "--socket-path",
            Carrier::VirtioPci => "--virtio-pci-socket",
        };
        let options = [&[option, &text], options].concat();
        let back_end = block(lab, &options, &image)?;
        let memory = Memory::File(lab.run.memory("sibling"));
        let sibling = VmBuilder::new(lab, "sibling")
            .cpus(2)
            .memory(memory, MEMORY)
            .module("loop");
        let mut sibling = match carrier {
            Carrier::VhostUser => sibling.vhost_user_blk(&socket, 2),
            Carrier::VirtioPci => sibling.qemu(&lab.machine.new_qemu).vfio_user(&socket, 0x10),
        };
        for tool in ["mke2fs", "fio"] {
            sibling = sibling.program(lab.machine.program(tool)?);
        }
        let sibling = sibling.start()?;
        Ok(Self {
            image,
            back_end,
            sibling,
        })
    }

    /// Reads the file `name` of the disk in the guest's sysfs.
    fn sysfs(&self, name: &str) -> Result<String> {
        let command = format!("cat /sys/block/vda/{name}");
        Ok(self.sibling.check(&command)?.trim().to_owned())
    }

    fn expect(&self, values: &[(&str, &str)]) -> Result<()> {
        for (name, expected) in values {
            let value = self.sysfs(name)?;
            ensure!(value == *expected, "{name} is {value}, not {expected}");
        }
        Ok(())
    }

    fn end(self) -> Result<PathBuf> {
        self.sibling.shutdown()?;
        end(&self.back_end)?;
        Ok(self.image)
    }
}

/// Makes an image in which all bytes are 0xa5, so the image has no holes.
fn full_image(lab: &Lab) -> Result<PathBuf> {
    let image = lab.run.image("disk.img", DISK_SIZE)?;
    fs::write(&image, vec![0xa5; DISK_SIZE as usize])?;
    File::open(&image)?.sync_all()?;
    Ok(image)
}

/// A loop device of the host with sectors of 4096 bytes. Dropping this value detaches the file from
/// the loop device.
struct LoopDevice(PathBuf);

impl LoopDevice {
    /// Attaches a file to a loop device. If the host has no loop devices, prints a message and
    /// returns `None`.
    fn new(file: &Path) -> Result<Option<Self>> {
        let output = Command::new("losetup")
            .args(["--find", "--show", "--sector-size", "4096"])
            .arg(file)
            .output()?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr);
            println!("SKIPPED, no loop device: {}", reason.trim());
            return Ok(None);
        }
        let device = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Some(Self(device.into())))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

/// The space that an image takes in its file system, in bytes.
fn space(image: &Path) -> Result<u64> {
    Ok(fs::metadata(image)?.blocks() * 512)
}

/// Whether all bytes in a range of the image are `byte`.
fn is_all(image: &Path, byte: u8, offset: u64, len: u64) -> Result<bool> {
    let mut bytes = vec![!byte; len as usize];
    File::open(image)?.read_exact_at(&mut bytes, offset)?;
    Ok(bytes.iter().all(|&b| b == byte))
}

#[test]
fn the_kernel_sees_and_uses_the_features_of_a_vhost_user_disk() {
    check_features("features", Carrier::VhostUser);
}

#[test]
fn the_kernel_sees_and_uses_the_features_of_a_pci_function() {
    check_features("features-pci", Carrier::VirtioPci);
}

fn check_features(name: &str, carrier: Carrier) {
    test(name, |lab| {
        let options = ["--serial", "vvu-features"];
        let disk = Disk::carried(lab, carrier, full_image(lab)?, &options)?;
        disk.expect(&[
            ("serial", "vvu-features"),
            ("queue/logical_block_size", "512"),
            ("queue/physical_block_size", "4096"),
            ("queue/minimum_io_size", "4096"),
            ("queue/discard_granularity", "4096"),
            ("queue/discard_max_bytes", "2147483648"),
            ("queue/write_zeroes_max_bytes", "2147483648"),
            ("cache_type", "write back"),
        ])?;
        let before = space(&disk.image)?;
        disk.sibling
            .check(&format!("blkdiscard -o {MIB} -l {} {DISK}", 8 * MIB))?;
        ensure!(
            space(&disk.image)? <= before - 8 * MIB + SLACK,
            "discard gives no space back"
        );
        ensure!(is_all(&disk.image, 0, MIB, 8 * MIB)?, "not discarded");
        ensure!(is_all(&disk.image, 0xa5, 0, MIB)?, "data before is lost");
        ensure!(
            is_all(&disk.image, 0xa5, 9 * MIB, MIB)?,
            "data behind is lost"
        );

        // A loop device in the guest turns discards into write-zeroes requests. So `blkdiscard` on
        // the loop device sends write-zeroes requests to the disk.
        let script = format!(
            "set -e
            losetup -o {} /dev/loop0 {DISK}
            blkdiscard -o 0 -l {} /dev/loop0
            losetup -d /dev/loop0
            cmp -n {} -s /dev/zero {DISK} 2>/dev/null && exit 1
            dd if={DISK} bs=1M skip=16 count=4 2>/dev/null | cmp -n {} - /dev/zero",
            16 * MIB,
            4 * MIB,
            MIB,
            4 * MIB
        );
        disk.sibling.check(&script)?;
        ensure!(is_all(&disk.image, 0, 16 * MIB, 4 * MIB)?, "not zeroed");
        ensure!(
            is_all(&disk.image, 0xa5, 20 * MIB, MIB)?,
            "data behind is lost"
        );
        ensure!(
            space(&disk.image)? <= before - 12 * MIB + SLACK,
            "zeroes take up space"
        );

        for mode in ["write through", "write back", "write through"] {
            disk.sibling
                .check(&format!("echo '{mode}' > /sys/block/vda/cache_type"))?;
            disk.expect(&[("cache_type", mode)])?;
        }
        fio_verify(&disk.sibling)?;
        let image = disk.end()?;
        let size = fs::metadata(image)?.len();
        ensure!(size == DISK_SIZE, "the image has {size} bytes");
        Ok(())
    });
}

#[test]
fn fstrim_gives_space_back() {
    test("fstrim", |lab| {
        let disk = Disk::start(lab, &[])?;
        let script = format!(
            "set -e
            /usr/bin/mke2fs -q -F -t ext4 -E nodiscard {DISK}
            mkdir -p /mnt && mount -t ext4 {DISK} /mnt
            fallocate -l {} /mnt/space
            head -c {} /dev/urandom > /mnt/file
            sync",
            8 * MIB,
            32 * MIB
        );
        disk.sibling.check(&script)?;
        let before = space(&disk.image)?;
        let script = "set -e
            rm /mnt/file /mnt/space
            sync
            fstrim /mnt
            umount /mnt";
        disk.sibling.check(script)?;
        let after = space(&disk.image)?;
        ensure!(
            after + 64 * MIB < before,
            "{before} bytes before fstrim, {after} after it"
        );
        let written = write_files(&disk.sibling)?;
        let image = disk.end()?;
        check_image(lab, &image, &written)
    });
}

#[test]
fn a_guest_cannot_discard_if_discard_is_off() {
    test("no-discard", |lab| {
        let disk = Disk::start(lab, &["--discard=off"])?;
        disk.expect(&[("queue/discard_max_bytes", "0")])?;
        let refused = disk.sibling.run(&format!("blkdiscard {DISK}"))?;
        ensure!(refused.status != 0, "the disk discards");
        let image = disk.end()?;
        ensure!(is_all(&image, 0xa5, 0, DISK_SIZE)?, "the image has changed");
        Ok(())
    });
}

#[test]
fn a_disk_with_sectors_of_4096_bytes_works_past_the_page_cache() {
    test("sectors-4096", |lab| {
        let disk = Disk::start(lab, &["--block-size=4096", "--cache=none"])?;
        disk.expect(&[
            ("queue/logical_block_size", "4096"),
            ("queue/physical_block_size", "4096"),
            ("size", &(DISK_SIZE / 512).to_string()),
        ])?;
        let written = write_files(&disk.sibling)?;
        disk.sibling.reboot()?;
        check_files(&disk.sibling, &written.sums)?;
        let image = disk.end()?;
        check_image(lab, &image, &written)
    });
}

#[test]
fn a_disk_past_the_page_cache_keeps_what_fio_writes() {
    test("cache-none", |lab| {
        let disk = Disk::start(lab, &["--cache=none"])?;
        fio_verify(&disk.sibling)?;
        disk.end().map(drop)
    });
}

#[test]
fn a_block_device_of_the_host_works_as_a_disk() {
    test("block-device", |lab| {
        let file = full_image(lab)?;
        let Some(device) = LoopDevice::new(&file)? else {
            return Ok(());
        };
        let disk = Disk::serve(lab, device.0.clone(), &[])?;
        disk.expect(&[
            ("queue/logical_block_size", "4096"),
            ("queue/discard_granularity", "4096"),
            ("queue/write_zeroes_max_bytes", "2147483648"),
        ])?;
        let before = space(&file)?;
        let script = format!(
            "set -e
            blkdiscard -o {} -l {} {DISK}
            losetup -o {} /dev/loop0 {DISK}
            blkdiscard -o 0 -l {} /dev/loop0
            losetup -d /dev/loop0",
            64 * MIB,
            8 * MIB,
            80 * MIB,
            4 * MIB
        );
        disk.sibling.check(&script)?;
        let written = write_files(&disk.sibling)?;
        disk.end()?;
        ensure!(
            space(&file)? <= before - 12 * MIB + SLACK,
            "neither discards nor zeroes give space back"
        );
        ensure!(is_all(&file, 0, 64 * MIB, 8 * MIB)?, "not discarded");
        ensure!(is_all(&file, 0, 80 * MIB, 4 * MIB)?, "not zeroed");
        let between = is_all(&file, 0xa5, 72 * MIB, 8 * MIB)?;
        let behind = is_all(&file, 0xa5, 84 * MIB, MIB)?;
        ensure!(between && behind, "other data is lost");
        drop(device);
        check_image(lab, &file, &written)
    });
}
