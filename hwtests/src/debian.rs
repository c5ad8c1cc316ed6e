//! A small Debian on a disk image, for guests that boot from it.
//!
//! Its packages are unpacked, not configured, and its first process is a script that tests the disk.
//! It boots three times: counts the boots, unpacks its own tree once more at each, and switches the
//! machine off at the third.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::initramfs::Initramfs;
use crate::lab::Lab;
use crate::provision::{debian_root, grub};
use crate::tree::quiet;

/// How often it boots.
pub const BOOTS: usize = 3;

/// What the kernel of a disk that boots by itself is told.
pub const KERNEL_ARGUMENTS: &str = "console=ttyS0 loglevel=4 panic=-1 reboot=t";

const MIB: u64 = 1 << 20;
/// Where the root file system begins on a disk with a boot loader, and its length.
const START: u64 = MIB;
const SIZE: u64 = 320 * MIB;
const SECTOR: u64 = 512;

/// Mounts the root file system, on whichever disk or partition it is, and goes there.
const INIT: &str = r#"#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
while read -r module; do insmod $module; done < /etc/modules
mkdir /target
until mount -t ext4 -o ro LABEL=debian /target 2>/dev/null; do :; done
mount --move /dev /target/dev
mount --move /proc /target/proc
mount --move /sys /target/sys
exec switch_root /target /sbin/init
"#;

/// The first process of the Debian.
const TEST: &str = r#"#!/bin/bash
export PATH=/usr/bin:/usr/sbin:/bin:/sbin
end() { mount -o remount,ro / && echo $1 > /proc/sysrq-trigger; sleep 60; }
fail() { echo "TEST FAILED: $1" > /dev/console; end o; }
mount -o remount,rw / || fail "the root cannot be written"
echo boot >> /boots
count=$(wc -l < /boots)
[ $count = 1 ] || (cd /copy-$((count - 1)) && sha256sum --quiet -c /sums-$((count - 1))) || fail sums
mkdir /copy-$count
tar -C / -c usr/bin bin | tar -C /copy-$count -x || fail tar
(cd /copy-$count && find . -type f -exec sha256sum {} + > /sums-$count)
sync
dpkg --version > /dev/null || fail dpkg
echo "TEST BOOT $count" > /dev/console
[ $count -lt 3 ] && end b
echo "TEST PASSED" > /dev/console
end o
"#;

/// An image that is a root file system and nothing else. For a kernel that is loaded otherwise, with
/// [`initramfs`].
pub fn root_image(lab: &Lab) -> Result<PathBuf> {
    let image = lab.run.image("root.img", SIZE)?;
    make_file_system(lab, &image, None)?;
    Ok(image)
}

/// The initramfs that finds the root file system.
pub fn initramfs(lab: &Lab) -> Result<PathBuf> {
    let mut initramfs = Initramfs::script(&lab.machine, INIT)?;
    for module in ["virtio_pci", "virtio_blk"] {
        initramfs.module(module)?;
    }
    let path = lab.run.file("debian.initramfs");
    initramfs.write(&path)?;
    Ok(path)
}

/// An image that a BIOS boots: GRUB, and a root file system with a kernel in a partition.
pub fn bootable_image(lab: &Lab) -> Result<PathBuf> {
    let partition = lab.run.image("partition.img", SIZE)?;
    make_file_system(lab, &partition, Some(&initramfs(lab)?))?;
    let image = lab.run.image("disk.img", START + SIZE)?;
    let mut disk = OpenOptions::new().write(true).open(&image)?;
    disk.write_all(&boot_loader(lab)?)?;
    disk.write_all_at(&partition_table(), 446)?;
    disk.write_all_at(&[0x55, 0xaa], 510)?;
    disk.seek(SeekFrom::Start(START))?;
    std::io::copy(&mut File::open(&partition)?, &mut disk)?;
    Ok(image)
}

/// Checks that a disk that has booted as often as it should holds a clean file system.
pub fn check(lab: &Lab, image: &Path, partitioned: bool) -> Result<()> {
    let image = match partitioned {
        true => partition_of(lab, image)?,
        false => image.to_owned(),
    };
    let image = image.to_string_lossy().into_owned();
    let check = lab.machine.program("e2fsck")?.output(["-f", "-n", &image]);
    check.context("the file system is not clean")?;
    let boots = lab.machine.program("debugfs")?;
    let boots = boots.output(["-R", "cat /boots", &image])?;
    ensure!(boots == "boot\n".repeat(BOOTS), "it booted: {boots:?}");
    Ok(())
}

fn partition_of(lab: &Lab, image: &Path) -> Result<PathBuf> {
    let partition = lab.run.file("partition.check");
    let mut disk = File::open(image)?;
    disk.seek(SeekFrom::Start(START))?;
    std::io::copy(&mut disk, &mut File::create(&partition)?)?;
    Ok(partition)
}

/// Makes a file system of the packages' files, the test and perhaps a kernel.
fn make_file_system(lab: &Lab, image: &Path, initramfs: Option<&Path>) -> Result<()> {
    let root = lab.run.file("root");
    quiet(
        Command::new("cp")
            .arg("-a")
            .arg(debian_root()?.root())
            .arg(&root),
    )?;
    for folder in ["dev", "proc", "sys", "sbin", "boot"] {
        fs::create_dir_all(root.join(folder))?;
    }
    if !root.join("bin/sh").exists() {
        symlink("dash", root.join("bin/sh"))?;
    }
    let init = root.join("sbin/init");
    fs::write(&init, TEST)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    if let Some(initramfs) = initramfs {
        fs::copy(&lab.machine.kernel.image, root.join("boot/vmlinuz"))?;
        fs::copy(initramfs, root.join("boot/initramfs"))?;
    }
    // GRUB does not know the newest features.
    let mke2fs = lab.machine.program("mke2fs")?;
    let (root_text, image) = (root.to_string_lossy(), image.to_string_lossy());
    let features = "^metadata_csum_seed,^orphan_file";
    let options = ["-q", "-F", "-t", "ext4", "-L", "debian", "-O", features];
    mke2fs.output(options.into_iter().chain(["-d", &*root_text, &*image]))?;
    fs::remove_dir_all(&root)?;
    Ok(())
}

/// GRUB's boot sector and what follows it up to the first partition.
fn boot_loader(lab: &Lab) -> Result<Vec<u8>> {
    let tree = grub()?;
    let modules = tree.root().join("usr/lib/grub/i386-pc");
    let script = lab.run.file("grub.cfg");
    let load = format!("linux /boot/vmlinuz {KERNEL_ARGUMENTS}\ninitrd /boot/initramfs\nboot\n");
    fs::write(&script, format!("set root=(hd0,msdos1)\n{load}"))?;
    let core = lab.run.file("core.img");
    let mut command = tree.program("grub-mkimage")?.command();
    let command = command
        .args(["-O", "i386-pc", "-p", "/boot", "-d"])
        .arg(&modules);
    let command = command.arg("-c").arg(&script).arg("-o").arg(&core);
    quiet(command.args(["biosdisk", "part_msdos", "ext2", "linux"]))?;
    let loader = [fs::read(modules.join("boot.img"))?, fs::read(&core)?].concat();
    ensure!(loader.len() as u64 <= START, "GRUB is too long");
    Ok(loader)
}

/// One Linux partition that takes the rest of the disk. GRUB's boot sector has code for diskettes
/// where the table goes.
fn partition_table() -> [u8; 64] {
    let mut table = [0; 64];
    table[..8].copy_from_slice(&[0x80, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff]);
    table[8..12].copy_from_slice(&((START / SECTOR) as u32).to_le_bytes());
    table[12..16].copy_from_slice(&((SIZE / SECTOR) as u32).to_le_bytes());
    table
}
