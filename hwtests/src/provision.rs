//! Downloads the QEMUs, the guests' kernel, and the programs for the tests, the demo and the
//! benchmark.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use crate::cache::Cache;
use crate::progress;
use crate::qemu::Qemu;
use crate::tree::{Packages, Program, Tree, quiet};

/// The name of the cache folder with the guests' kernel and programs, QEMU 7.2, and tools for the
/// host. When the packages in this folder change, increase the number in its name.
const OLD_TREE: &str = "bookworm-1";
const OLD: Packages = Packages {
    suites: &["bookworm"],
    prefer: "bookworm",
    names: &[
        "busybox-static",
        "e2fsprogs",
        "fio",
        "kmod",
        "linux-image-cloud-amd64",
        "qemu-system-common",
        "qemu-system-x86",
    ],
};

/// The name of the cache folder with a QEMU that has the device vfio-user-pci. QEMU 10.1 and newer
/// versions have this device.
const NEW_TREE: &str = "trixie-backports-1";
const NEW: Packages = Packages {
    suites: &["trixie", "trixie-backports"],
    prefer: "trixie-backports",
    names: &["qemu-system-x86"],
};

/// The name of the cache folder with the programs that the benchmark uses, and with qemu-img.
const BENCHMARK_TREE: &str = "benchmark-2";
const BENCHMARK: Packages = Packages {
    suites: &["trixie", "trixie-backports"],
    prefer: "trixie-backports",
    names: &["fio", "qemu-utils", "strace"],
};

/// The programs for the benchmark.
#[derive(Debug)]
pub struct BenchmarkTools {
    /// fio, a program that does I/O on a file.
    pub fio: Program,
    /// qemu-storage-daemon, QEMU's vhost-user-blk back-end.
    pub storage_daemon: Program,
    /// strace, a program that counts system calls.
    pub strace: Program,
}

/// Downloads the programs for the benchmark if they are not in the cache yet.
pub fn benchmark_tools() -> Result<BenchmarkTools> {
    let what = "fio, qemu-storage-daemon and strace";
    let cache = Cache::open()?;
    let tree = tree(&cache, BENCHMARK_TREE, &BENCHMARK, what, |_| Ok(()))?;
    Ok(BenchmarkTools {
        fio: tree.program("fio")?,
        storage_daemon: tree.program("qemu-storage-daemon")?,
        strace: tree.program("strace")?,
    })
}

/// Downloads qemu-img if it is not in the cache yet.
pub fn qemu_img() -> Result<Program> {
    let what = "qemu-img";
    tree(
        &Cache::open()?,
        BENCHMARK_TREE,
        &BENCHMARK,
        what,
        |_| Ok(()),
    )?
    .program(what)
}

/// The name of the cache folder with the programs that make a Debian disk, and with UEFI firmware.
const DEBIAN_TREE: &str = "bookworm-disk-1";
const DEBIAN: Packages = Packages {
    suites: &["bookworm"],
    prefer: "bookworm",
    names: &[
        "debootstrap",
        "dosfstools",
        "grub-common",
        "grub-efi-amd64-bin",
        "grub-pc-bin",
        "mtools",
        "ovmf",
    ],
};

/// Downloads the programs that make a Debian disk if they are not in the cache yet.
pub fn debian_tools() -> Result<Tree> {
    let what = "debootstrap, GRUB and firmware";
    tree(&Cache::open()?, DEBIAN_TREE, &DEBIAN, what, |_| Ok(()))
}

/// The name of the cache folder with qemu-nbd, which makes a network block device in a guest.
const NBD_TREE: &str = "bookworm-nbd-1";
const NBD: Packages = Packages {
    suites: &["bookworm"],
    prefer: "bookworm",
    names: &["qemu-utils"],
};

/// Downloads qemu-nbd if it is not in the cache yet.
pub fn nbd_server() -> Result<Program> {
    tree(&Cache::open()?, NBD_TREE, &NBD, "qemu-nbd", |_| Ok(()))?.program("qemu-nbd")
}

/// The QEMUs, the guests' kernel, and the programs for all tests.
#[derive(Debug)]
pub struct Provisioned {
    /// QEMU 7.2, from Debian 12.
    pub old_qemu: Qemu,
    /// A QEMU that has the device vfio-user-pci.
    pub new_qemu: Qemu,
    /// The guests' kernel.
    pub kernel: Kernel,
    tools: Tree,
}

impl Provisioned {
    /// The program `name` of Debian 12, for guests or for the host.
    pub fn program(&self, name: &str) -> Result<Program> {
        self.tools.program(name)
    }
}

/// The guests' kernel.
#[derive(Debug)]
pub struct Kernel {
    /// The path of the kernel image.
    pub image: PathBuf,
    /// The path of the folder with the kernel modules.
    pub modules: PathBuf,
}

impl Kernel {
    fn in_tree(tree: &Tree) -> Result<Self> {
        let modules = only_entry(&tree.root().join("lib/modules"))?;
        let release = modules.file_name().unwrap_or_default().to_string_lossy();
        let image = tree.root().join(format!("boot/vmlinuz-{release}"));
        Ok(Self { image, modules })
    }
}

/// Downloads the QEMUs, the kernel and the programs for all tests if they are not in the cache yet.
pub fn provision() -> Result<Provisioned> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the test guests need an x86-64 machine"
    );
    let cache = Cache::open()?;
    let tools = tree(
        &cache,
        OLD_TREE,
        &OLD,
        "a kernel, QEMU 7.2 and tools",
        index_modules,
    )?;
    Ok(Provisioned {
        old_qemu: Qemu::in_tree(&tools)?,
        new_qemu: new_qemu(&cache)?,
        kernel: Kernel::in_tree(&tools)?,
        tools,
    })
}

/// Returns the QEMU at `$VVU_QEMU` if the variable is set. If the variable is not set, returns the
/// machine's QEMU, or downloads a QEMU if the machine has no QEMU with the device vfio-user-pci.
fn new_qemu(cache: &Cache) -> Result<Qemu> {
    if let Some(path) = env::var_os("VVU_QEMU") {
        let qemu = Qemu::at(Path::new(&path)).context("VVU_QEMU")?;
        qemu.need_vfio_user()?;
        return Ok(qemu);
    }
    if let Some(qemu) = Qemu::of_machine().filter(|qemu| qemu.need_vfio_user().is_ok()) {
        return Ok(qemu);
    }
    let tree = tree(cache, NEW_TREE, &NEW, "a QEMU with vfio-user-pci", |_| {
        Ok(())
    })?;
    let qemu = Qemu::in_tree(&tree)?;
    qemu.need_vfio_user()?;
    Ok(qemu)
}

fn tree(
    cache: &Cache,
    name: &str,
    packages: &Packages,
    what: &str,
    finish: impl FnOnce(&Tree) -> Result<()>,
) -> Result<Tree> {
    let root = cache.folder(name, |folder| {
        let start = Instant::now();
        let suite = packages.prefer;
        progress(format!("downloading {what} ({suite}; about 15 s)"));
        let tree = Tree::unpack(folder, &mirror()?, packages)
            .with_context(|| format!("cannot download {what}"))?;
        finish(&tree)?;
        let seconds = start.elapsed().as_secs();
        progress(format!("downloaded {what} in {seconds} s"));
        Ok(())
    })?;
    Ok(Tree::new(root))
}

/// Returns the address in `$VVU_DEBIAN_MIRROR`, or the address of the mirror from which this
/// machine installs Debian packages.
pub fn mirror() -> Result<String> {
    if let Ok(mirror) = env::var("VVU_DEBIAN_MIRROR") {
        return Ok(mirror);
    }
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    // `apt-get update --print-uris` prints lines such as 'ADDRESS/dists/bookworm/InRelease', even
    // if the package lists were never downloaded.
    let sources = quiet(Command::new("apt-get").args(["update", "--print-uris"]))?;
    let ending = format!("/dists/{}/InRelease'", codename.unwrap_or_default());
    let mirror = sources.lines().find_map(|line| line.split_once(&ending));
    let address = mirror.map(|(address, _)| address.trim_start_matches('\'').to_owned());
    address.context("apt has no Debian source; set VVU_DEBIAN_MIRROR to the address of a mirror")
}

/// Writes modules.dep, the list of dependencies between kernel modules. The install script of the
/// kernel's package would write the list, but the script does not run here.
fn index_modules(tree: &Tree) -> Result<()> {
    let modules = only_entry(&tree.root().join("lib/modules"))?;
    let depmod = tree.program("kmod")?.named("depmod");
    let release = modules.file_name().unwrap_or_default();
    depmod.output([OsStr::new("-b"), tree.root().as_os_str(), release])?;
    Ok(())
}

fn only_entry(folder: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .collect::<Result<Vec<_>, _>>()?;
    ensure!(
        entries.len() == 1,
        "{} has {} entries, not one",
        folder.display(),
        entries.len()
    );
    Ok(entries.remove(0).path())
}
