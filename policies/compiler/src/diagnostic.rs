//! What is wrong, and where.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most characters of a line that are shown.
const SHOWN: usize = 120;

/// A file as it was read.
#[derive(Debug)]
pub(crate) struct FileText {
    pub path: PathBuf,
    pub text: String,
    /// Where it was included, if it was.
    pub included_from: Option<Location>,
}

/// A stretch of a file.
#[derive(Clone, Debug)]
pub struct Location {
    file: Arc<FileText>,
    start: usize,
    end: usize,
}

/// Where a [`Location`] is, in plain values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// Its line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
}

impl Location {
    pub(crate) fn new(file: &Arc<FileText>, start: usize, end: usize) -> Self {
        let file = file.clone();
        Self { file, start, end }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Where this file was included, if it was.
    pub fn included_from(&self) -> Option<&Self> {
        self.file.included_from.as_ref()
    }

    /// The text itself.
    pub fn text(&self) -> &str {
        self.file.text.get(self.start..self.end).unwrap_or_default()
    }

    /// Line and column.
    pub fn place(&self) -> Place {
        let before = &self.file.text[..self.start];
        Place {
            path: self.file.path.clone(),
            line: 1 + before.matches('\n').count(),
            column: 1 + before[self.line_start()..].chars().count(),
        }
    }

    fn line_start(&self) -> usize {
        let before = &self.file.text[..self.start];
        before.rfind('\n').map_or(0, |at| at + 1)
    }

    /// The line with a caret below what is meant.
    fn snippet(&self) -> (String, String) {
        let rest = &self.file.text[self.line_start()..];
        let line = rest.lines().next().unwrap_or_default();
        let column = self.start - self.line_start();
        let before = line.get(..column).unwrap_or(line);
        let skipped = before.chars().count().saturating_sub(SHOWN / 2);
        let shown = line.chars().skip(skipped).take(SHOWN).map(printable);
        let lead = before.chars().skip(skipped).map(blank).collect::<String>();
        let width = self.text().lines().next().unwrap_or_default();
        let width = width.chars().count().clamp(1, SHOWN / 2);
        (shown.collect(), lead + &"^".repeat(width))
    }
}

/// Two stretches are one when they are the same of the same file, however it was included.
impl PartialEq for Location {
    fn eq(&self, other: &Self) -> bool {
        let key = |location: &Self| (location.start, location.end);
        key(self) == key(other) && self.path() == other.path()
    }
}

impl Eq for Location {}

/// A file's control characters do nothing to the terminal.
fn printable(letter: char) -> char {
    if letter.is_control() && letter != '\t' {
        '\u{fffd}'
    } else {
        letter
    }
}

/// What is as wide as `letter` but empty.
fn blank(letter: char) -> char {
    if letter == '\t' { '\t' } else { ' ' }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path.display(), self.line, self.column)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place().fmt(f)
    }
}

/// What is wrong with a policy: one line, where, and what was expected.
#[derive(Clone, Debug)]
pub struct Diagnostic(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    message: String,
    at: Option<Location>,
    others: Vec<(String, Location)>,
    advice: Option<String>,
}

impl Diagnostic {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            message: message.into(),
            at: None,
            others: Vec::new(),
            advice: None,
        }))
    }

    pub(crate) fn at(mut self, location: &Location) -> Self {
        self.0.at = Some(location.clone());
        self
    }

    pub(crate) fn and(mut self, what: impl Into<String>, location: &Location) -> Self {
        self.0.others.push((what.into(), location.clone()));
        self
    }

    pub(crate) fn advice(mut self, advice: impl Into<String>) -> Self {
        self.0.advice = Some(advice.into());
        self
    }

    /// What is wrong, in one line.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Where, if it is in a file.
    pub fn location(&self) -> Option<&Location> {
        self.0.at.as_ref()
    }

    /// The other place where two places do not go together.
    pub fn other_locations(&self) -> impl Iterator<Item = &Location> {
        self.0.others.iter().map(|(_, location)| location)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.message)?;
        if let Some(location) = &self.0.at {
            write_place(f, "-->", location)?;
        }
        for (what, location) in &self.0.others {
            write!(f, "\n{what}")?;
            write_place(f, "-->", location)?;
        }
        match &self.0.advice {
            Some(advice) => write!(f, "\n  = {advice}"),
            None => Ok(()),
        }
    }
}

fn write_place(f: &mut fmt::Formatter<'_>, arrow: &str, location: &Location) -> fmt::Result {
    let place = location.place();
    let (line, caret) = location.snippet();
    let number = place.line.to_string();
    let margin = " ".repeat(number.len());
    write!(
        f,
        "\n {margin}{arrow} {place}\n {margin} |\n {number} | {line}\n {margin} | {caret}"
    )?;
    let mut from = location.included_from();
    while let Some(location) = from {
        write!(f, "\n {margin} = included from {location}")?;
        from = location.included_from();
    }
    Ok(())
}

impl std::error::Error for Diagnostic {}
