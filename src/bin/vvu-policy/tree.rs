//! Where policies are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use policies::compiler::{Arch, Folder, Loaded, Memory, Options, Policy, Source, load};

use crate::Failure;
use crate::args::TreeArguments;

/// A folder for each architecture, with policies in it.
pub enum Tree {
    /// Those that were built in.
    BuiltIn(Memory),
    /// Those of a folder, and its path.
    Folder(Folder, PathBuf),
}

impl Tree {
    pub fn open(arguments: &TreeArguments) -> Result<Self, Failure> {
        let Some(root) = &arguments.tree else {
            return Ok(Self::BuiltIn(policies::sources()));
        };
        let folder = folder(root, arguments)?;
        let tree = Self::Folder(folder, root.clone());
        match Arch::ALL.into_iter().any(|arch| tree.has(arch)) {
            true => Ok(tree),
            false => Err(Failure::Other(format!(
                "{}: has no folder x86_64, aarch64 or arm",
                root.display()
            ))),
        }
    }

    pub fn source(&self) -> &dyn Source {
        match self {
            Self::BuiltIn(memory) => memory,
            Self::Folder(folder, _) => folder,
        }
    }

    /// The architectures among `wanted` that there are policies for; all, when none is wanted.
    pub fn arches(&self, wanted: &[Arch]) -> Vec<Arch> {
        let chosen = |arch: &Arch| wanted.is_empty() || wanted.contains(arch);
        let arches = Arch::ALL.into_iter().filter(chosen);
        arches.filter(|arch| self.has(*arch)).collect()
    }

    fn has(&self, arch: Arch) -> bool {
        match self {
            Self::BuiltIn(_) => true,
            Self::Folder(_, root) => root.join(arch.name()).is_dir(),
        }
    }

    /// The policies of an architecture, in order.
    pub fn policies(&self, arch: Arch) -> Result<Vec<PathBuf>, Failure> {
        let all: Vec<PathBuf> = match self {
            Self::BuiltIn(memory) => {
                let paths = memory.paths().filter(|path| path.starts_with(arch.name()));
                paths.map(Path::to_owned).collect()
            }
            Self::Folder(_, root) => {
                let folder = root.join(arch.name());
                let entries = fs::read_dir(&folder).map_err(|error| failed(&folder, &error))?;
                let paths = entries.map(|entry| Ok(entry?.path()));
                paths.collect::<io::Result<_>>()?
            }
        };
        let is_policy = |path: &PathBuf| path.extension().is_some_and(|end| end == "policy");
        let mut policies: Vec<_> = all.into_iter().filter(is_policy).collect();
        policies.sort();
        Ok(policies)
    }

    /// The policies of an architecture that no other one includes.
    pub fn contexts(&self, arch: Arch) -> Result<Vec<PathBuf>, Failure> {
        let policies = self.policies(arch)?;
        let mut included = Vec::new();
        for path in &policies {
            let loaded = self.load(path)?;
            included.extend(loaded.includes().map(|(_, target)| target.to_owned()));
        }
        let alone = policies.into_iter().filter(|path| !included.contains(path));
        Ok(alone.collect())
    }

    pub fn load(&self, path: &Path) -> Result<Loaded, Failure> {
        Ok(load(self.source(), path, &Options::default())?)
    }

    /// The policy of a context.
    pub fn context(&self, name: &str, arch: Arch) -> Result<Policy, Failure> {
        Ok(Policy::merge(&self.load_context(name, arch)?, arch)?)
    }

    /// The policy of a context, as its files say it.
    pub fn load_context(&self, name: &str, arch: Arch) -> Result<Loaded, Failure> {
        let policies = self.policies(arch)?;
        let path = policies.iter().find(|path| self::name(path) == name);
        match path {
            Some(path) => self.load(path),
            None => {
                let known: Vec<_> = policies.iter().map(|path| self::name(path)).collect();
                let message = format!("{arch} has no policy '{name}', but {}", known.join(", "));
                Err(Failure::Other(message))
            }
        }
    }
}

/// A folder with the freedom that was asked for.
pub fn folder(root: &Path, arguments: &TreeArguments) -> Result<Folder, Failure> {
    let mut folder = Folder::new(root).map_err(|error| failed(root, &error))?;
    for (from, to) in &arguments.map {
        folder.map(from.clone(), to.clone());
    }
    if arguments.anywhere {
        folder.allow_anywhere();
    }
    Ok(folder)
}

/// A policy's name.
pub fn name(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// What went wrong with a file.
pub fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::Other(format!("{}: {error}", path.display()))
}
