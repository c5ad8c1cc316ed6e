//! Errors in policies, with the location in the file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The maximum number of characters of a line that an error message shows.
const SHOWN: usize = 120;

/// The path and the content of a file.
#[derive(Debug)]
pub(crate) struct FileText {
    pub path: PathBuf,
    pub text: String,
    /// The location of the path in the `@include` that included this file. `None` for the first
    /// file.
    pub included_from: Option<Location>,
}

/// A range of text in a file.
#[derive(Clone, Debug)]
pub struct Location {
    file: Arc<FileText>,
    start: usize,
    end: usize,
}

/// The start of a [`Location`] as path, line and column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The path of the file.
    pub path: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
    /// The character in the line, counted from 1.
    pub column: usize,
}

impl Location {
    pub(crate) fn new(file: &Arc<FileText>, start: usize, end: usize) -> Self {
        let file = file.clone();
        Self { file, start, end }
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// The location of the `@include` that included this file. `None` for the first file.
    pub fn included_from(&self) -> Option<&Self> {
        self.file.included_from.as_ref()
    }

    /// The text at this location.
    pub fn text(&self) -> &str {
        self.file.text.get(self.start..self.end).unwrap_or_default()
    }

    /// The position where the text starts.
    pub fn position(&self) -> Position {
        let before = &self.file.text[..self.start];
        Position {
            path: self.file.path.clone(),
            line: 1 + before.matches('\n').count(),
            column: 1 + before[self.line_start()..].chars().count(),
        }
    }

    fn line_start(&self) -> usize {
        let before = &self.file.text[..self.start];
        before.rfind('\n').map_or(0, |at| at + 1)
    }

    /// The line of text at the location, and a line of carets that marks the location.
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

/// Two locations are equal if they are the same range of the same file. The chain of includes that
/// led to the file does not matter.
impl PartialEq for Location {
    fn eq(&self, other: &Self) -> bool {
        let key = |location: &Self| (location.start, location.end);
        key(self) == key(other) && self.path() == other.path()
    }
}

impl Eq for Location {}

/// Replaces control characters, so that a policy file cannot send commands to the terminal.
fn printable(letter: char) -> char {
    if letter.is_control() && letter != '\t' {
        '\u{fffd}'
    } else {
        letter
    }
}

/// White space as wide as `letter`.
fn blank(letter: char) -> char {
    if letter == '\t' { '\t' } else { ' ' }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path.display(), self.line, self.column)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.position().fmt(f)
    }
}

/// An error in a policy: a message of one line, its location, and advice.
///
/// `Display` prints the error in several lines, with the part of the file that the error is about.
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

    /// The message, in one line.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The location of the error. `None` if the error is not about a part of a file.
    pub fn location(&self) -> Option<&Location> {
        self.0.at.as_ref()
    }

    /// The location of the other statement if two statements contradict each other.
    pub fn other_locations(&self) -> impl Iterator<Item = &Location> {
        self.0.others.iter().map(|(_, location)| location)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.message)?;
        if let Some(location) = &self.0.at {
            write_location(f, location)?;
        }
        for (what, location) in &self.0.others {
            write!(f, "\n{what}")?;
            write_location(f, location)?;
        }
        match &self.0.advice {
            Some(advice) => write!(f, "\n  = {advice}"),
            None => Ok(()),
        }
    }
}

fn write_location(f: &mut fmt::Formatter<'_>, location: &Location) -> fmt::Result {
    let position = location.position();
    let (line, carets) = location.snippet();
    let number = position.line.to_string();
    let margin = " ".repeat(number.len());
    write!(
        f,
        "\n {margin}--> {position}\n {margin} |\n {number} | {line}\n {margin} | {carets}"
    )?;
    let mut from = location.included_from();
    while let Some(location) = from {
        write!(f, "\n {margin} = included from {location}")?;
        from = location.included_from();
    }
    Ok(())
}

impl std::error::Error for Diagnostic {}
