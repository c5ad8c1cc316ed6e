//! A small Debian on a disk image, for guests that boot from it.
//!
//! debootstrap made it. Its first process is a script that tests the disk: it looks at what kernel and
//! udev know, writes files, installs a package, and restarts the machine until it has booted often
//! enough, then switches it off.

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

/// How often it boots.
pub const BOOTS: usize = 3;

/// What the kernel of a disk that boots by itself is told.
pub const KERNEL_ARGUMENTS: &str = "console=ttyS0 loglevel=4 panic=-1 reboot=t test.boots=3";

/// What a kernel is told that boots once, from a disk that cannot be written.
pub const READ_ONLY_ARGUMENTS: &str =
    "console=ttyS0 loglevel=4 panic=-1 reboot=t test.overlay test.boots=1";

const INIT: &str = include_str!("debian/init.sh");
const TEST: &str = include_str!("debian/test.sh");

/// A disk to boot from.
#[derive(Debug)]
pub struct Disk {
    /// The disk itself.
    pub image: PathBuf,
    /// Where on it the root file system begins.
    root: u64,
}

/// A disk that is a root file system and nothing else. For a kernel that is loaded otherwise, with
/// [`initramfs`].
pub fn root_disk(lab: &Lab) -> Result<Disk> {
    let image = lab.run.image("disk.img", loader::ROOT_SIZE)?;
    let disk = Disk { image, root: 0 };
    disk.make_root(lab, None)?;
    Ok(disk)
}

/// A disk that firmware boots, be it a BIOS or UEFI: GRUB, and a root file system with a kernel in a
/// partition.
pub fn bootable_disk(lab: &Lab) -> Result<Disk> {
    let disk = Disk {
        image: lab.run.image("disk.img", loader::DISK_SIZE)?,
        root: loader::ROOT_START,
    };
    disk.make_root(lab, Some(&initramfs(lab)?))?;
    loader::make_bootable(lab, &disk.image)?;
    Ok(disk)
}

/// The initramfs that finds the root file system.
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
    /// Checks that a disk that has booted as often as it should holds a clean file system.
    pub fn check(&self, lab: &Lab) -> Result<()> {
        let root = self.root();
        let check = lab.machine.program("e2fsck")?.output(["-f", "-n", &root]);
        check.context("the file system is not clean")?;
        let boots = lab.machine.program("debugfs")?;
        let boots = boots.output(["-R", "cat /boots", &root])?;
        ensure!(boots == "boot\n".repeat(BOOTS), "it booted: {boots:?}");
        Ok(())
    }

    /// The root file system, as programs for ext4 want it named.
    fn root(&self) -> String {
        format!("{}?offset={}", self.image.display(), self.root)
    }

    /// Makes a file system of debootstrap's files, the test and perhaps a kernel.
    fn make_root(&self, lab: &Lab, initramfs: Option<&Path>) -> Result<()> {
        // GRUB does not know the newest features.
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
