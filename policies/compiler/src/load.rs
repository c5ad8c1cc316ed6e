//! Reads a policy and the files that it includes.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::vec::IntoIter;

use crate::Source;
use crate::ast::{Item, Text};
use crate::diagnostic::{Diagnostic, FileText, Location};
use crate::parser::parse;

/// The maximum number of files in one policy.
const MAX_FILES: usize = 1024;

/// Options of [`load`].
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Accept `@denylist`, which allows every system call that the policy does not name.
    pub denylist: bool,
    /// A file and a line number. The `@include` in this line is skipped.
    pub without: Option<(PathBuf, usize)>,
}

/// A parsed policy with all its files. It can be merged for every architecture.
#[derive(Debug)]
pub struct Loaded {
    pub(crate) items: Vec<Item>,
    pub(crate) options: Options,
    path: PathBuf,
    includes: Vec<(Location, PathBuf)>,
    files: Vec<PathBuf>,
}

impl Loaded {
    /// The path of the policy itself, not of an included file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The location of every `@include`, and the path of the included file.
    pub fn includes(&self) -> impl Iterator<Item = (&Location, &Path)> {
        self.includes.iter().map(|(at, path)| (at, path.as_path()))
    }

    /// The paths of all files. The path of the policy itself comes first.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The location of every system call name in every statement.
    pub fn statements(&self) -> impl Iterator<Item = &Location> {
        let statements = self.items.iter().filter_map(|item| match item {
            Item::Statement(statement) => Some(statement),
            _ => None,
        });
        statements.flat_map(|statement| statement.names.iter().map(|name| &name.name.at))
    }
}

/// Reads the policy at `path` and the files that it includes. A file that is included twice is read
/// once, because its statements add nothing the second time.
///
/// # Errors
///
/// A [`Diagnostic`] when a file is missing, is not UTF-8, does not parse, or includes itself.
pub fn load(source: &dyn Source, path: &Path, options: &Options) -> Result<Loaded, Diagnostic> {
    let resolved = source
        .resolve(path)
        .map_err(|error| Diagnostic::new(format!("{}: {error}", path.display())))?;
    let mut loader = Loader {
        source,
        options,
        open: Vec::new(),
        seen: HashSet::new(),
        loaded: Loaded {
            items: Vec::new(),
            options: options.clone(),
            path: resolved.clone(),
            includes: Vec::new(),
            files: Vec::new(),
        },
    };
    loader.open(resolved, None)?;
    loader.read_all()?;
    Ok(loader.loaded)
}

struct Loader<'a> {
    source: &'a dyn Source,
    options: &'a Options,
    /// The files that are being read, with the remaining items of each. Each file is included by
    /// the file before it.
    open: Vec<(PathBuf, IntoIter<Item>)>,
    seen: HashSet<PathBuf>,
    loaded: Loaded,
}

impl Loader<'_> {
    /// Processes the items of all files one by one. This is a loop and not a recursion, because
    /// includes may be nested very deeply.
    fn read_all(&mut self) -> Result<(), Diagnostic> {
        while let Some((_, items)) = self.open.last_mut() {
            match items.next() {
                Some(item) => self.item(item)?,
                None => drop(self.open.pop()),
            }
        }
        Ok(())
    }

    fn open(&mut self, path: PathBuf, from: Option<Location>) -> Result<(), Diagnostic> {
        if !self.seen.insert(path.clone()) {
            return Ok(());
        }
        if self.seen.len() > MAX_FILES {
            let error = Diagnostic::new(format!("the policy has more than {MAX_FILES} files"));
            return Err(located(error, from.as_ref()));
        }
        let file = self.read(&path, from)?;
        self.loaded.files.push(path.clone());
        self.open.push((path, parse(&file)?.into_iter()));
        Ok(())
    }

    fn read(&self, path: &Path, from: Option<Location>) -> Result<Arc<FileText>, Diagnostic> {
        let describe = |error: io::Error| {
            let error = Diagnostic::new(format!("{}: {error}", path.display()));
            located(error, from.as_ref())
        };
        let content = self.source.read(path).map_err(describe)?;
        let file = |text| {
            Arc::new(FileText {
                path: path.to_owned(),
                text,
                included_from: from.clone(),
            })
        };
        match String::from_utf8(content) {
            Ok(text) => Ok(file(text)),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let bytes = error.into_bytes();
                let lossy = file(String::from_utf8_lossy(&bytes).into_owned());
                let at = Location::new(&lossy, valid, valid);
                Err(Diagnostic::new("the file is not UTF-8 text").at(&at))
            }
        }
    }

    fn item(&mut self, item: Item) -> Result<(), Diagnostic> {
        match item {
            Item::Include(path) => self.include(&path),
            Item::Frequency(path) => self.frequency(&path),
            Item::Denylist(at) if !self.options.denylist => Err(Diagnostic::new(
                "a denylist allows every call that it does not name",
            )
            .at(&at)
            .advice("list the allowed calls instead, or compile with denylists accepted")),
            item => {
                self.loaded.items.push(item);
                Ok(())
            }
        }
    }

    fn include(&mut self, path: &Text) -> Result<(), Diagnostic> {
        let position = path.at.position();
        if let Some((file, line)) = &self.options.without
            && (file, line) == (&position.path, &position.line)
        {
            return Ok(());
        }
        let target = self.resolve(path)?;
        if let Some(at) = self.open.iter().position(|(open, _)| *open == target) {
            let circle = self.open[at..]
                .iter()
                .map(|(file, _)| file.display().to_string());
            let circle: Vec<_> = circle.collect();
            let message = format!("'{}' includes itself", path.text);
            return Err(Diagnostic::new(message).at(&path.at).advice(format!(
                "the circle of includes: {} -> {}",
                circle.join(" -> "),
                target.display()
            )));
        }
        self.loaded.includes.push((path.at.clone(), target.clone()));
        self.open(target, Some(path.at.clone()))
    }

    /// Checks the syntax of a `@frequency` file. Its content does not change the compiled program.
    fn frequency(&self, path: &Text) -> Result<(), Diagnostic> {
        let target = self.resolve(path)?;
        let file = self.read(&target, Some(path.at.clone()))?;
        let mut start = 0;
        for line in file.text.split_inclusive('\n') {
            if !is_frequency(line) {
                let at = Location::new(&file, start, start + line.trim_end().len());
                return Err(Diagnostic::new("expected 'call: count'").at(&at));
            }
            start += line.len();
        }
        Ok(())
    }

    fn resolve(&self, path: &Text) -> Result<PathBuf, Diagnostic> {
        let here = self.open.last().and_then(|(file, _)| file.parent());
        let target = here.unwrap_or(Path::new("")).join(&path.text);
        self.source.resolve(&target).map_err(|error| {
            Diagnostic::new(format!("cannot include '{}': {error}", path.text)).at(&path.at)
        })
    }
}

fn located(error: Diagnostic, at: Option<&Location>) -> Diagnostic {
    match at {
        Some(at) => error.at(at),
        None => error,
    }
}

fn is_frequency(line: &str) -> bool {
    let line = line.split('#').next().unwrap_or_default().trim();
    let is_count = |count: &str| count.trim().parse::<u64>().is_ok();
    line.is_empty()
        || line
            .split_once(':')
            .is_some_and(|(_, count)| is_count(count))
}
