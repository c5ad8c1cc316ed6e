//! Puts GRUB on a disk, for a BIOS and for UEFI firmware.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::lab::Lab;
use crate::provision::debian_tools;
use crate::tree::{Tree, quiet};

use super::KERNEL_ARGUMENTS;

const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;

/// The offset in bytes of the partition with the root file system.
pub const ROOT_START: u64 = MIB;
/// The size of the root file system in bytes.
pub const ROOT_SIZE: u64 = 512 * MIB;
/// The offset in bytes of the partition for UEFI firmware.
const EFI_START: u64 = ROOT_START + ROOT_SIZE;
/// The size in bytes of the partition for UEFI firmware.
const EFI_SIZE: u64 = 16 * MIB;
/// The size of the disk in bytes.
pub const DISK_SIZE: u64 = EFI_START + EFI_SIZE;

/// Makes the disk bootable for a BIOS and for UEFI firmware.
pub fn make_bootable(lab: &Lab, image: &Path) -> Result<()> {
    let tools = debian_tools()?;
    let mut disk = OpenOptions::new().write(true).open(image)?;
    disk.write_all(&boot_sectors(lab, &tools)?)?;
    make_efi_partition(lab, &tools, image)
}

/// Makes the EFI system partition. GRUB has the file name that UEFI firmware starts by default.
fn make_efi_partition(lab: &Lab, tools: &Tree, image: &Path) -> Result<()> {
    let modules = ["part_msdos", "ext2", "search", "linux"];
    let grub = grub(lab, tools, "x86_64-efi", &modules)?;
    let (image, grub) = (image.to_string_lossy(), grub.to_string_lossy());
    let sector = (EFI_START / SECTOR).to_string();
    let size = (EFI_SIZE >> 10).to_string();
    let format = ["-F", "16", "--offset", &sector, &image, &size];
    tools.program("mkfs.fat")?.output(format)?;
    let partition = format!("{image}@@{EFI_START}");
    let mtools = |name| Ok::<_, anyhow::Error>(tools.program("mtools")?.named(name));
    mtools("mmd")?.output(["-i", &partition, "::EFI", "::EFI/BOOT"])?;
    mtools("mcopy")?.output(["-i", &partition, &grub, "::EFI/BOOT/BOOTX64.EFI"])?;
    Ok(())
}

/// Makes the content of the disk before the first partition: GRUB for a BIOS, and the partition
/// table.
fn boot_sectors(lab: &Lab, tools: &Tree) -> Result<Vec<u8>> {
    let modules = ["biosdisk", "part_msdos", "ext2", "search", "linux"];
    let core = fs::read(grub(lab, tools, "i386-pc", &modules)?)?;
    let mut sectors = fs::read(tools.root().join("usr/lib/grub/i386-pc/boot.img"))?;
    // In bytes 446 to 509, GRUB's boot sector has code for floppy disks. The partition table
    // replaces this code.
    sectors[446..510].copy_from_slice(&partition_table());
    sectors[510..512].copy_from_slice(&[0x55, 0xaa]);
    sectors.extend(core);
    ensure!(sectors.len() as u64 <= ROOT_START, "GRUB is too long");
    Ok(sectors)
}

/// Makes an image of GRUB for a platform such as `i386-pc`, and returns the path of the image.
fn grub(lab: &Lab, tools: &Tree, platform: &str, modules: &[&str]) -> Result<PathBuf> {
    let script = lab.run.file("grub.cfg");
    let find = "search --set=root --label debian";
    let load = format!("linux /boot/vmlinuz {KERNEL_ARGUMENTS}\ninitrd /boot/initramfs\nboot\n");
    fs::write(&script, format!("{find}\n{load}"))?;
    let image = lab.run.file(&format!("grub.{platform}"));
    let mut command = tools.program("grub-mkimage")?.command();
    command.args(["-O", platform, "-p", "/boot", "-d"]);
    command.arg(tools.root().join("usr/lib/grub").join(platform));
    command.arg("-c").arg(&script).arg("-o").arg(&image);
    quiet(command.args(modules))?;
    Ok(image)
}

/// Makes a table of two primary partitions: an active partition for Linux, and a partition for UEFI
/// firmware.
fn partition_table() -> [u8; 64] {
    let mut table = [0; 64];
    let entries = [
        (0x80, 0x83, ROOT_START, ROOT_SIZE),
        (0, 0xef, EFI_START, EFI_SIZE),
    ];
    for (entry, (flags, kind, start, size)) in table.chunks_mut(16).zip(entries) {
        entry[..8].copy_from_slice(&[flags, 0xfe, 0xff, 0xff, kind, 0xfe, 0xff, 0xff]);
        entry[8..12].copy_from_slice(&((start / SECTOR) as u32).to_le_bytes());
        entry[12..].copy_from_slice(&((size / SECTOR) as u32).to_le_bytes());
    }
    table
}

/// The path of the UEFI firmware for QEMU.
pub fn uefi() -> Result<PathBuf> {
    Ok(debian_tools()?.root().join("usr/share/ovmf/OVMF.fd"))
}
