//! Disk images with a small Debian, for guests that boot from them.
//!
//! debootstrap makes the files of the root file system. The first process of the guest is a script
//! that tests the disk. The script prints the properties of the disk in the kernel and in udev,
//! writes files, and installs a package. It restarts the guest until the guest has booted as often
//! as the kernel argument `test.boots` says ([`BOOTS`] times for a writable disk). Then it switches
//! the guest off.

mod loader;
mod root;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::initramfs::Initramfs;
use crate::lab::Lab;
use crate::tree::quiet;

pub use loader::uefi;
pub use root::possible;

/// The number of times that a guest boots from a writable disk.
pub const BOOTS: usize = 3;

/// The kernel arguments for a writable disk.
pub const KERNEL_ARGUMENTS: &str = "console=ttyS0 loglevel=4 panic=-1 reboot=t test.boots=3";

/// The kernel arguments for a read-only disk, from which the guest boots once.
pub const READ_ONLY_ARGUMENTS: &str =
    "console=ttyS0 loglevel=4 panic=-1 reboot=t test.overlay test.boots=1";

const INIT: &str = include_str!("debian/init.sh");
const TEST: &str = include_str!("debian/test.sh");

/// A disk image from which a guest boots.
#[derive(Debug)]
pub struct Disk {
    /// The path of the image file.
    pub image: PathBuf,
    /// The offset of the root file system in the image, in bytes.
    root: u64,
}

/// Makes a disk that contains only a root file system. To boot from this disk, QEMU has to load the
/// kernel and [`initramfs`].
pub fn root_disk(lab: &Lab) -> Result<Disk> {
    let image = lab.run.image("disk.img", loader::ROOT_SIZE)?;
    let disk = Disk { image, root: 0 };
    disk.make_root(lab, None)?;
    Ok(disk)
}

/// Makes a disk that both a BIOS and UEFI firmware can boot. The disk has GRUB, and a partition
/// with a root file system and a kernel.
pub fn bootable_disk(lab: &Lab) -> Result<Disk> {
    let disk = Disk {
        image: lab.run.image("disk.img", loader::DISK_SIZE)?,
        root: loader::ROOT_START,
    };
    disk.make_root(lab, Some(&initramfs(lab)?))?;
    loader::make_bootable(lab, &disk.image)?;
    Ok(disk)
}

/// Makes the initramfs that mounts the root file system, and returns its path.
pub fn initramfs(lab: &Lab) -> Result<PathBuf> {
    let mut initramfs = Initramfs::script(&lab.machine, INIT)?;
    for module in ["virtio_pci", "virtio_blk", "overlay"] {
        initramfs.module(module)?;
    }
    let path = lab.run.file("debian.initramfs");
    initramfs.write(&path)?;
    Ok(path)
}

impl Disk {
    /// Checks that the guest has booted [`BOOTS`] times and that the file system is clean.
    pub fn check(&self, lab: &Lab) -> Result<()> {
        let root = self.root();
        let check = lab.machine.program("e2fsck")?.output(["-f", "-n", &root]);
        check.context("the file system is not clean")?;
        let boots = lab.machine.program("debugfs")?;
        let boots = boots.output(["-R", "cat /boots", &root])?;
        ensure!(boots == "boot\n".repeat(BOOTS), "boots: {boots:?}");
        Ok(())
    }

    /// The name by which the programs of e2fsprogs open the root file system in the image.
    fn root(&self) -> String {
        format!("{}?offset={}", self.image.display(), self.root)
    }

    /// Makes the root file system with debootstrap's files and the test script. If `initramfs` is
    /// given, adds the initramfs and the guests' kernel to the file system.
    fn make_root(&self, lab: &Lab, initramfs: Option<&Path>) -> Result<()> {
        // GRUB does not support the features metadata_csum_seed and orphan_file of ext4.
        let features = "^metadata_csum_seed,^orphan_file";
        let offset = format!("offset={}", self.root);
        let mut mke2fs = lab.machine.program("mke2fs")?.command();
        mke2fs
            .args(["-q", "-F", "-t", "ext4", "-L", "debian", "-O", features])
            .args(["-E", &offset, "-d"])
            .arg(root::root()?)
            .arg(&self.image)
            .arg(format!("{}k", loader::ROOT_SIZE >> 10));
        quiet(&mut mke2fs)?;
        let test = lab.run.file("test.sh");
        fs::write(&test, TEST)?;
        let mut commands = format!("write {} /usr/sbin/init\n", test.display());
        commands += "set_inode_field /usr/sbin/init mode 0100755\n";
        if let Some(initramfs) = initramfs {
            let kernel = lab.machine.kernel.image.display();
            commands += &format!("write {kernel} /boot/vmlinuz\n");
            commands += &format!("write {} /boot/initramfs\n", initramfs.display());
        }
        let script = lab.run.file("debugfs");
        fs::write(&script, commands)?;
        let debugfs = lab.machine.program("debugfs")?;
        debugfs.output(["-w", "-f", &*script.to_string_lossy(), &self.root()])?;
        Ok(())
    }
}
