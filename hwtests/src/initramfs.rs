//! Makes the initramfs of a guest. The initramfs contains `/init` (our agent or a script), busybox,
//! programs with their libraries, and kernel modules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cpio::Archive;
use crate::provision::{Kernel, Provisioned};
use crate::tree::{Program, quiet};

/// The path of the file that lists kernel modules for the agent. Each line is the path of a module.
/// The agent loads the modules in the order of the lines.
pub const MODULES: &str = "etc/modules";

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
const FOLDERS: [&str; 7] = ["dev", "etc", "proc", "root", "run", "sys", "tmp"];
const LINKS: [(&str, &str); 5] = [
    ("bin", "usr/bin"),
    ("sbin", "usr/bin"),
    ("usr/sbin", "bin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib64"),
];

enum Entry {
    Folder,
    Copy(PathBuf),
    Content(String),
    Link(String),
}

/// An initramfs that is being put together.
pub struct Initramfs {
    entries: BTreeMap<String, Entry>,
    dependencies: String,
    module_folder: PathBuf,
    modules: Vec<String>,
}

impl Initramfs {
    /// Makes an initramfs with busybox, and with the agent as the first process.
    pub fn new(machine: &Provisioned, agent: &Path) -> Result<Self> {
        let mut new = Self::base(machine)?;
        new.program(&Program::host(agent)?)?;
        let agent = agent.file_name().unwrap_or_default().to_string_lossy();
        new.add("init", Entry::Link(format!("usr/bin/{agent}")));
        Ok(new)
    }

    /// Makes an initramfs with busybox, and with the script `init` as the first process.
    pub fn script(machine: &Provisioned, init: &str) -> Result<Self> {
        let mut new = Self::base(machine)?;
        new.add("init", Entry::Content(init.to_owned()));
        Ok(new)
    }

    fn base(machine: &Provisioned) -> Result<Self> {
        let mut new = Self {
            entries: BTreeMap::new(),
            dependencies: dependencies(&machine.kernel)?,
            module_folder: machine.kernel.modules.clone(),
            modules: Vec::new(),
        };
        FOLDERS
            .iter()
            .for_each(|folder| new.add(folder, Entry::Folder));
        LINKS
            .iter()
            .for_each(|(path, target)| new.add(path, Entry::Link((*target).to_owned())));
        new.busybox(&machine.program("busybox")?)?;
        Ok(new)
    }

    /// Adds a program as `/usr/bin/NAME`, with the libraries that it loads.
    pub fn program(&mut self, program: &Program) -> Result<()> {
        self.add(
            &format!("usr/bin/{}", program.name()),
            Entry::Copy(program.path().to_owned()),
        );
        self.library(
            LOADER.to_owned(),
            program.loader().to_owned(),
            program.is_host(),
        );
        for file in program.libraries()? {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            self.library(
                format!("{LIBRARIES}/{name}"),
                file.clone(),
                program.is_host(),
            );
        }
        Ok(())
    }

    /// Adds the kernel module `name`, after the modules that it depends on.
    pub fn module(&mut self, name: &str) -> Result<()> {
        let ending = format!("/{name}.ko");
        let (module, needs) = self
            .dependencies
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(module, _)| module.ends_with(&ending))
            .with_context(|| format!("the guests' kernel has no module {name}"))?;
        // modules.dep lists the dependencies of a module in reverse order. The last dependency has
        // to be loaded first.
        let order = needs.split_whitespace().rev().chain([module]);
        let new: Vec<_> = order.map(str::to_owned).collect();
        for module in new {
            let path = format!("lib-modules/{module}");
            if !self.entries.contains_key(&path) {
                self.modules.push(format!("/{path}\n"));
                self.add(&path, Entry::Copy(self.module_folder.join(module)));
            }
        }
        Ok(())
    }

    /// Writes the initramfs as a cpio archive to the file `path`.
    pub fn write(mut self, path: &Path) -> Result<()> {
        let modules = self.modules.concat();
        self.add(MODULES, Entry::Content(modules));
        let file = File::create(path)
            .with_context(|| format!("cannot create the initramfs {}", path.display()))?;
        let mut archive = Archive::new(BufWriter::new(file));
        for folder in self.parents() {
            archive.directory(&folder)?;
        }
        for (path, entry) in &self.entries {
            match entry {
                Entry::Folder => archive.directory(path)?,
                Entry::Content(text) => archive.file(path, text.as_bytes())?,
                Entry::Link(target) => archive.symlink(path, target)?,
                Entry::Copy(from) => {
                    let content = fs::read(from)
                        .with_context(|| format!("cannot read {}", from.display()))?;
                    archive.file(path, &content)?;
                }
            }
        }
        archive
            .finish()
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn add(&mut self, path: &str, entry: Entry) {
        self.entries.insert(path.to_owned(), entry);
    }

    /// Adds a library. If two libraries have the same path in the initramfs, the library of this
    /// machine is used, because our programs are linked against this library. Debian 12's programs
    /// can use the library, too, because it is at least as new as the library of Debian 12.
    fn library(&mut self, path: String, file: PathBuf, host: bool) {
        if host || !self.entries.contains_key(&path) {
            self.entries.insert(path, Entry::Copy(file));
        }
    }

    fn busybox(&mut self, busybox: &Program) -> Result<()> {
        self.add("usr/bin/busybox", Entry::Copy(busybox.path().to_owned()));
        let applets = quiet(std::process::Command::new(busybox.path()).arg("--list"))?;
        for applet in applets.lines().filter(|applet| *applet != "busybox") {
            self.entries
                .entry(format!("usr/bin/{applet}"))
                .or_insert_with(|| Entry::Link("busybox".to_owned()));
        }
        Ok(())
    }

    fn parents(&self) -> BTreeSet<String> {
        let paths = self
            .entries
            .keys()
            .flat_map(|path| Path::new(path).ancestors().skip(1));
        let names = paths.map(|path| path.to_string_lossy().into_owned());
        names.filter(|name| !name.is_empty()).collect()
    }
}

fn dependencies(kernel: &Kernel) -> Result<String> {
    let path = kernel.modules.join("modules.dep");
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}
