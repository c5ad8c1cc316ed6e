//! Unpacks Debian packages into a folder, and runs their programs from there.
//!
//! apt resolves and verifies the packages with a separate package database. So nothing is installed
//! on the machine, and the user need not be root. The dynamic loader in the folder starts the
//! programs. They do not run in a chroot, so they see the machine's files.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::live::last_lines;

/// The path of the file with the public keys of Debian's archive.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const HOST_LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
const LOADERS: [&str; 2] = [
    "usr/lib64/ld-linux-x86-64.so.2",
    "lib64/ld-linux-x86-64.so.2",
];
const PROGRAMS: [&str; 4] = ["usr/bin", "usr/sbin", "bin", "sbin"];
const LIBRARIES: [&str; 3] = [
    "usr/lib/x86_64-linux-gnu",
    "lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu/ceph",
];

/// The packages to unpack.
#[derive(Clone, Copy, Debug)]
pub struct Packages {
    /// The Debian suites from which packages are taken.
    pub suites: &'static [&'static str],
    /// The suite whose packages are preferred.
    pub prefer: &'static str,
    /// The names of the packages. Their dependencies are unpacked, too. Their recommended packages
    /// are not unpacked.
    pub names: &'static [&'static str],
}

/// A folder of unpacked packages.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// Uses a folder into which packages were unpacked earlier.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Downloads packages from `mirror` and unpacks them into the folder `root`.
    pub fn unpack(root: &Path, mirror: &str, packages: &Packages) -> Result<Self> {
        let apt = Apt::new(root.join("apt"), mirror, packages)?;
        apt.run(&["update"])?;
        let select = format!("APT::Default-Release={}", packages.prefer);
        let mut install = vec!["-o", &select, "--yes", "--download-only", "install"];
        install.extend(packages.names);
        apt.run(&install)?;
        for file in fs::read_dir(apt.folder.join("archives"))? {
            let file = file?.path();
            if file.extension().is_some_and(|extension| extension == "deb") {
                quiet(
                    Command::new("dpkg-deb")
                        .arg("--extract")
                        .arg(&file)
                        .arg(root),
                )?;
            }
        }
        fs::remove_dir_all(&apt.folder)?;
        Ok(Self::new(root.to_owned()))
    }

    /// The path of the folder with the unpacked packages.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Finds a program in the folder by its file name.
    pub fn program(&self, name: &str) -> Result<Program> {
        let path = self.find(PROGRAMS.map(|folder| format!("{folder}/{name}")))?;
        let loader = self.find(LOADERS)?;
        let search: Vec<_> = LIBRARIES
            .iter()
            .map(|folder| self.root.join(folder))
            .collect();
        Ok(Program {
            path,
            loader,
            search,
            name: name.to_owned(),
        })
    }

    fn find<const N: usize>(&self, candidates: [impl AsRef<Path>; N]) -> Result<PathBuf> {
        let paths = candidates.map(|candidate| self.root.join(candidate));
        let found = paths.iter().find(|path| path.exists());
        found.cloned().with_context(|| {
            format!(
                "{} is missing; remove its tree to download it again",
                paths[0].display()
            )
        })
    }
}

/// A program, and the dynamic loader and libraries that belong to it.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    name: String,
    loader: PathBuf,
    search: Vec<PathBuf>,
}

impl Program {
    /// A program of this machine, with the machine's dynamic loader.
    pub fn host(path: &Path) -> Result<Self> {
        ensure!(path.is_file(), "{} is not a program", path.display());
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Ok(Self {
            path: path.to_owned(),
            name,
            loader: HOST_LOADER.into(),
            search: Vec::new(),
        })
    }

    /// Sets the name (`argv[0]`) with which the program runs. Some programs choose their function
    /// by this name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// A command that runs the program.
    pub fn command(&self) -> Command {
        if self.search.is_empty() {
            return Command::new(&self.path);
        }
        let mut command = self.loader_command();
        command.arg("--argv0").arg(&self.name).arg(&self.path);
        command
    }

    /// Runs the program to its end and returns its standard output. It is an error if the program
    /// fails.
    pub fn output<I: Into<OsString>>(
        &self,
        arguments: impl IntoIterator<Item = I>,
    ) -> Result<String> {
        quiet(self.command().args(arguments.into_iter().map(Into::into)))
    }

    /// The path of the program.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name (`argv[0]`) with which the program runs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path of the dynamic loader of the program.
    pub fn loader(&self) -> &Path {
        &self.loader
    }

    /// Whether the program belongs to this machine, and not to a folder of unpacked packages.
    pub fn is_host(&self) -> bool {
        self.search.is_empty()
    }

    /// The paths of the libraries that the program loads.
    pub fn libraries(&self) -> Result<Vec<PathBuf>> {
        let listing = quiet(self.loader_command().arg("--list").arg(&self.path))?;
        let files = listing.lines().filter_map(|line| line.split_once(" => "));
        Ok(files
            .filter_map(|(_, file)| file.split(" (").next())
            .map(PathBuf::from)
            .collect())
    }

    fn loader_command(&self) -> Command {
        let mut command = Command::new(&self.loader);
        if !self.search.is_empty() {
            let search: Vec<_> = self
                .search
                .iter()
                .map(|path| path.to_string_lossy())
                .collect();
            command.arg("--library-path").arg(search.join(":"));
        }
        command
    }
}

/// Writes an executable shell script with the content `text`.
pub fn script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{text}"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Runs apt with a configuration and a package database in a separate folder.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn new(folder: PathBuf, mirror: &str, packages: &Packages) -> Result<Self> {
        fs::create_dir_all(folder.join("lists/partial"))?;
        fs::create_dir_all(folder.join("archives/partial"))?;
        fs::write(folder.join("status"), "")?;
        let sources: String = packages
            .suites
            .iter()
            .map(|suite| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n"))
            .collect();
        fs::write(folder.join("sources.list"), sources)?;
        Ok(Self { folder })
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        let folder = self.folder.display();
        let settings = [
            format!("Dir::State={folder}"),
            format!("Dir::State::status={folder}/status"),
            format!("Dir::Cache={folder}"),
            format!("Dir::Etc::SourceList={folder}/sources.list"),
            "Dir::Etc::SourceParts=/dev/null".into(),
            "Dir::Etc::Preferences=/dev/null".into(),
            "Dir::Etc::PreferencesParts=/dev/null".into(),
            "APT::Install-Recommends=false".into(),
            // Without this setting, root's apt downloads as the user _apt, who cannot read root's
            // home folder.
            "APT::Sandbox::User=".into(),
            // With apt's locking switched off, a user who is not root can resolve packages. The
            // lock of our cache replaces apt's locks.
            "Debug::NoLocking=true".into(),
        ];
        let mut command = Command::new("apt-get");
        command
            .arg("--quiet=2")
            .env("DEBIAN_FRONTEND", "noninteractive");
        for setting in settings {
            command.args(["-o", &setting]);
        }
        quiet(command.args(arguments))?;
        Ok(())
    }
}

/// Runs a command and returns its standard output. If the command fails, the error contains the
/// last lines of the command's output.
pub fn quiet(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let printed = text + &String::from_utf8_lossy(&output.stderr);
        bail!(
            "{program} failed ({}){}",
            output.status,
            last_lines(&printed, 8)
        );
    }
    Ok(text)
}
