//! Gets what tests and the demo need: two QEMUs, a kernel and programs for guests.

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

/// Guests' kernel and programs, QEMU 7.2, and tools for the host. Counted up when it changes.
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

/// A QEMU with vfio-user-pci, which came with 10.1. Counted up when it changes.
const NEW_TREE: &str = "trixie-backports-1";
const NEW: Packages = Packages {
    suites: &["trixie", "trixie-backports"],
    prefer: "trixie-backports",
    names: &["qemu-system-x86"],
};

/// Programs that the benchmark compares with, and one for images. Counted up when it changes.
const BENCHMARK_TREE: &str = "benchmark-2";
const BENCHMARK: Packages = Packages {
    suites: &["trixie", "trixie-backports"],
    prefer: "trixie-backports",
    names: &["fio", "qemu-utils", "strace"],
};

/// What [`benchmark_tools`] got.
#[derive(Debug)]
pub struct BenchmarkTools {
    /// Does I/O on a file.
    pub fio: Program,
    /// QEMU's vhost-user-blk back-end.
    pub storage_daemon: Program,
    /// Counts system calls.
    pub strace: Program,
}

/// Fetches what the benchmark compares with, if it is not in the cache yet.
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

/// Fetches QEMU's program for images, if it is not in the cache yet.
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

/// What a Debian disk is made with, and firmware for it. Counted up when it changes.
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

/// Fetches what a Debian disk is made with, if it is not in the cache yet.
pub fn debian_tools() -> Result<Tree> {
    let what = "debootstrap, GRUB and firmware";
    tree(&Cache::open()?, DEBIAN_TREE, &DEBIAN, what, |_| Ok(()))
}

/// A server of network block devices for guests. Counted up when it changes.
const NBD_TREE: &str = "bookworm-nbd-1";
const NBD: Packages = Packages {
    suites: &["bookworm"],
    prefer: "bookworm",
    names: &["qemu-utils"],
};

/// Fetches qemu-nbd, if it is not in the cache yet.
pub fn nbd_server() -> Result<Program> {
    tree(&Cache::open()?, NBD_TREE, &NBD, "qemu-nbd", |_| Ok(()))?.program("qemu-nbd")
}

/// What [`provision`] got.
#[derive(Debug)]
pub struct Provisioned {
    /// Debian 12's QEMU, 7.2.
    pub old_qemu: Qemu,
    /// A QEMU that has vfio-user-pci.
    pub new_qemu: Qemu,
    /// The guests' kernel.
    pub kernel: Kernel,
    tools: Tree,
}

impl Provisioned {
    /// A program of Debian 12: for guests, or to run on the host.
    pub fn program(&self, name: &str) -> Result<Program> {
        self.tools.program(name)
    }
}

/// The guests' kernel.
#[derive(Debug)]
pub struct Kernel {
    /// The kernel itself.
    pub image: PathBuf,
    /// The folder with its modules.
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

/// Fetches what is not in the cache yet.
pub fn provision() -> Result<Provisioned> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the test guests are x86-64: run this on such a machine"
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

/// `$VVU_QEMU`, else the machine's QEMU if new enough, else one from the packages.
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
        progress(format!("fetching {what} ({}; about 15 s)", packages.prefer));
        let tree = Tree::unpack(folder, &mirror()?, packages)
            .with_context(|| format!("cannot fetch {what}"))?;
        finish(&tree)?;
        progress(format!("fetched {what} in {} s", start.elapsed().as_secs()));
        Ok(())
    })?;
    Ok(Tree::new(root))
}

/// The mirror that the machine itself installs Debian from, or `$VVU_DEBIAN_MIRROR`.
pub fn mirror() -> Result<String> {
    if let Ok(mirror) = env::var("VVU_DEBIAN_MIRROR") {
        return Ok(mirror);
    }
    let release = fs::read_to_string("/etc/os-release").context("cannot tell the system")?;
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    // Lines such as 'ADDRESS/dists/bookworm/InRelease' and more, even before any update.
    let sources = quiet(Command::new("apt-get").args(["update", "--print-uris"]))?;
    let ending = format!("/dists/{}/InRelease'", codename.unwrap_or_default());
    let mirror = sources.lines().find_map(|line| line.split_once(&ending));
    mirror.map(|(address, _)| address.trim_start_matches('\'').to_owned()).context(
        "apt has no Debian source to take a mirror from; set VVU_DEBIAN_MIRROR to the address of one",
    )
}

/// Writes the modules' dependencies, which the package leaves to its install script.
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
        "{} holds {} folders, not one",
        folder.display(),
        entries.len()
    );
    Ok(entries.remove(0).path())
}
