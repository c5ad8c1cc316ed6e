//! The QEMU programs for tests. Tests use an old version, and a version with vfio-user-pci.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tree::{Program, Tree, quiet};

const NAME: &str = "qemu-system-x86_64";
const FIRMWARE: [&str; 3] = ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"];
const MODULES: &str = "usr/lib/x86_64-linux-gnu/qemu";

/// A QEMU program that emulates an x86-64 machine.
#[derive(Clone, Debug)]
pub struct Qemu {
    program: Program,
    tree: Option<PathBuf>,
    version: String,
}

impl Qemu {
    /// The QEMU in a folder of unpacked Debian packages.
    pub fn in_tree(tree: &Tree) -> Result<Self> {
        Self::new(tree.program(NAME)?, Some(tree.root().to_owned()))
    }

    /// The QEMU at this path. It is an error if the program does not print QEMU's version.
    pub fn at(path: &Path) -> Result<Self> {
        Self::new(Program::host(path)?, None)
    }

    /// The first QEMU in the folders of `$PATH`, or `None`.
    pub fn of_machine() -> Option<Self> {
        let path = std::env::var_os("PATH")?;
        let found = std::env::split_paths(&path).map(|folder| folder.join(NAME));
        found.into_iter().find_map(|file| Self::at(&file).ok())
    }

    /// The version of this QEMU, such as `7.2.22`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Checks that this QEMU can attach a vfio-user device.
    pub fn need_vfio_user(&self) -> Result<()> {
        let devices = quiet(self.command().args(["-device", "help"]))?;
        if !devices.contains("\"vfio-user-pci\"") {
            bail!(
                "{} is QEMU {}, which has no vfio-user-pci; set VVU_QEMU to the path of QEMU 10.1 \
                 or newer, or unset it to download one",
                self.program.path().display(),
                self.version
            );
        }
        Ok(())
    }

    /// A command that runs this QEMU.
    pub fn command(&self) -> Command {
        let mut command = self.program.command();
        if let Some(tree) = &self.tree {
            command.env("QEMU_MODULE_DIR", tree.join(MODULES));
            for folder in FIRMWARE {
                command.arg("-L").arg(tree.join(folder));
            }
        }
        command
    }

    fn new(program: Program, tree: Option<PathBuf>) -> Result<Self> {
        let text = program.output(["--version"])?;
        let words = text.split_whitespace();
        let version = words.skip_while(|word| *word != "version").nth(1);
        let version = version.with_context(|| {
            let path = program.path().display();
            format!("{path} does not print a version as QEMU does")
        })?;
        Ok(Self {
            version: version.to_owned(),
            program,
            tree,
        })
    }
}
