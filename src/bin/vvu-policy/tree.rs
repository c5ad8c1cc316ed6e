//! The tree of policies that a subcommand reads.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use policies::compiler::{Arch, Folder, Loaded, Memory, Options, Policy, Source, load};

use crate::CommandError;
use crate::args::TreeArguments;

/// A tree of policies, which has a folder for each architecture.
pub enum PolicyTree {
    /// The policies that are built into the programs.
    BuiltIn(Memory),
    /// The policies below a folder, and the path of this folder.
    Folder(Folder, PathBuf),
}

impl PolicyTree {
    pub fn open(arguments: &TreeArguments) -> Result<Self, CommandError> {
        let Some(root) = &arguments.tree else {
            return Ok(Self::BuiltIn(policies::sources()));
        };
        let folder = folder(root, arguments)?;
        let tree = Self::Folder(folder, root.clone());
        if Arch::ALL.into_iter().any(|arch| tree.has(arch)) {
            return Ok(tree);
        }
        let root = root.display();
        let message = format!("{root}: the tree has no folder x86_64, aarch64 or arm");
        Err(CommandError::Other(message))
    }

    pub fn source(&self) -> &dyn Source {
        match self {
            Self::BuiltIn(memory) => memory,
            Self::Folder(folder, _) => folder,
        }
    }

    /// The architectures that the tree has. If `wanted` is not empty, architectures outside
    /// `wanted` are left out.
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

    /// The sorted paths of all policies of an architecture.
    pub fn policies(&self, arch: Arch) -> Result<Vec<PathBuf>, CommandError> {
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

    /// The paths of the policies of an architecture that no other policy includes.
    pub fn contexts(&self, arch: Arch) -> Result<Vec<PathBuf>, CommandError> {
        let policies = self.policies(arch)?;
        let mut included = Vec::new();
        for path in &policies {
            let loaded = self.load(path)?;
            included.extend(loaded.includes().map(|(_, target)| target.to_owned()));
        }
        let alone = policies.into_iter().filter(|path| !included.contains(path));
        Ok(alone.collect())
    }

    pub fn load(&self, path: &Path) -> Result<Loaded, CommandError> {
        Ok(load(self.source(), path, &Options::default())?)
    }

    /// Loads the policy of a context and merges it for an architecture.
    pub fn context(&self, name: &str, arch: Arch) -> Result<Policy, CommandError> {
        Ok(Policy::merge(&self.load_context(name, arch)?, arch)?)
    }

    /// Loads the policy of a context without merging it.
    pub fn load_context(&self, name: &str, arch: Arch) -> Result<Loaded, CommandError> {
        let policies = self.policies(arch)?;
        let path = policies.iter().find(|path| self::name(path) == name);
        match path {
            Some(path) => self.load(path),
            None => {
                let known: Vec<_> = policies.iter().map(|path| self::name(path)).collect();
                let known = known.join(", ");
                let message = format!("{arch} has no policy '{name}'; it has {known}");
                Err(CommandError::Other(message))
            }
        }
    }
}

/// Opens a policy folder with the options `--map` and `--anywhere` of the command line.
pub fn folder(root: &Path, arguments: &TreeArguments) -> Result<Folder, CommandError> {
    let mut folder = Folder::new(root).map_err(|error| failed(root, &error))?;
    for (from, to) in &arguments.map {
        folder.map(from.clone(), to.clone());
    }
    if arguments.anywhere {
        folder.allow_anywhere();
    }
    Ok(folder)
}

/// The name of the policy at `path`: its file name without `.policy`.
pub fn name(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// The error for a file that cannot be read or written.
pub fn failed(path: &Path, error: &io::Error) -> CommandError {
    CommandError::Other(format!("{}: {error}", path.display()))
}
