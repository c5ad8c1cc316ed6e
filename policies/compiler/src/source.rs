//! Sources of policy files. A source is a folder or memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

/// The maximum size of a file in bytes. Real policies have a few thousand bytes.
const MAX_FILE: u64 = 1 << 20;

/// A tree of policy files.
pub trait Source {
    /// Finds the file at `path` and returns its canonical path, which is the same for every path to
    /// the file.
    ///
    /// # Errors
    ///
    /// When the file does not exist or is outside the tree.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf>;

    /// Reads the file at a path that [`Source::resolve`] returned.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or is too large for a policy (1 MiB).
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// A folder of policies.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
    shown: PathBuf,
    anywhere: bool,
    mapped: Vec<(PathBuf, PathBuf)>,
}

impl Folder {
    /// A source of the files below `root`. Symbolic links to files outside `root` are refused.
    ///
    /// # Errors
    ///
    /// When the folder does not exist or cannot be accessed.
    pub fn new(root: &Path) -> io::Result<Self> {
        Ok(Self {
            root: root.canonicalize()?,
            shown: root.to_owned(),
            anywhere: false,
            mapped: Vec::new(),
        })
    }

    /// Lets policies include files outside the folder.
    pub fn allow_anywhere(&mut self) {
        self.anywhere = true;
    }

    /// Replaces the folder `from` at the start of included paths by the folder `to`.
    pub fn map(&mut self, from: PathBuf, to: PathBuf) {
        self.mapped.push((from, to));
    }

    fn mapped(&self, path: &Path) -> PathBuf {
        let found = self.mapped.iter().find_map(|(from, to)| {
            let rest = path.strip_prefix(from).ok()?;
            Some(to.join(rest))
        });
        found.unwrap_or_else(|| path.to_owned())
    }
}

impl Source for Folder {
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let real = self.mapped(path).canonicalize()?;
        match real.strip_prefix(&self.root) {
            Ok(inside) => Ok(self.shown.join(inside)),
            Err(_) if self.anywhere => Ok(real),
            Err(_) => Err(io::Error::other(format!(
                "the file is outside the policy folder {}",
                self.shown.display()
            ))),
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut content = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut content)?;
        check_size(&content)?;
        Ok(content)
    }
}

/// Files in memory, by path.
#[derive(Clone, Debug, Default)]
pub struct Memory(BTreeMap<PathBuf, Vec<u8>>);

impl Memory {
    /// An empty source.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file with this path and content.
    pub fn add(&mut self, path: impl AsRef<Path>, content: impl Into<Vec<u8>>) -> &mut Self {
        self.0.insert(normal(path.as_ref()), content.into());
        self
    }

    /// The paths of all files, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }
}

impl Source for Memory {
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let path = normal(path);
        if self.0.contains_key(&path) {
            Ok(path)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let content = self.0.get(path).ok_or(io::ErrorKind::NotFound)?;
        check_size(content)?;
        Ok(content.clone())
    }
}

fn check_size(content: &[u8]) -> io::Result<()> {
    if content.len() as u64 > MAX_FILE {
        let message = format!("the file has more than {MAX_FILE} bytes");
        return Err(io::Error::other(message));
    }
    Ok(())
}

/// The path without its `.` and `..` components.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            component => normal.push(component),
        }
    }
    normal
}
