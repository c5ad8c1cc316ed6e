//! Checks the length of lines and files.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use cargo_metadata::Metadata;
use hwtests::{Context, Result, ensure};

use super::Findings;
use crate::cargo;

/// The maximum number of characters in a line.
const COLUMNS: usize = 100;
/// The maximum number of lines in a file of Rust code.
const LINES: usize = 450;

/// Finds files of Rust code that are too long.
pub fn long_files(_: &Metadata) -> Result<Findings> {
    let mut findings = Findings::new();
    for (name, text) in files(&["*.rs"])? {
        let lines = text.lines().count();
        if lines > LINES {
            let problem = format!("{name}: has {lines} lines: split it, at {LINES} at the latest");
            findings.insert(name, problem);
        }
    }
    Ok(findings)
}

/// Finds files with lines that are too long.
pub fn long_lines(_: &Metadata) -> Result<Findings> {
    let mut findings = Findings::new();
    for (name, text) in files(&["*.rs", "*.toml", "*.policy", "*.md"])? {
        let is_prose = name.ends_with(".md");
        let lines = numbered(&text).filter(|(_, line)| is_long(line));
        let code = if is_prose {
            code_lines(&text)
        } else {
            BTreeSet::new()
        };
        let long = lines.filter(|(number, _)| !code.contains(number));
        let problems: Vec<_> = long
            .map(|(number, line)| problem(&name, number, line))
            .collect();
        if !problems.is_empty() {
            findings.insert(name, problems.join("\n"));
        }
    }
    Ok(findings)
}

fn problem(name: &str, number: usize, line: &str) -> String {
    let columns = line.chars().count();
    format!("{name}:{number}: has {columns} columns: break it, at {COLUMNS} at the latest")
}

/// The paths and texts of the files that match `patterns`. Untracked files that git ignores are
/// left out.
pub(super) fn files(patterns: &[&str]) -> Result<Vec<(String, String)>> {
    let read = |name: String| {
        let text = fs::read_to_string(cargo::root().join(&name)).context(name.clone())?;
        Ok((name, text))
    };
    paths(patterns)?.into_iter().map(read).collect()
}

/// The paths of the files that match `patterns`, relative to the top folder. Untracked files that
/// git ignores are left out.
pub(super) fn paths(patterns: &[&str]) -> Result<Vec<String>> {
    let output = Command::new("git")
        .args("ls-files -z --cached --others --exclude-standard --".split(' '))
        .args(patterns)
        .current_dir(cargo::root())
        .output()
        .context("cannot run git")?;
    ensure!(
        output.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let names = String::from_utf8(output.stdout).context("a file's name is not UTF-8")?;
    // git also lists a removed file until the removal is added to the index. So files that do not
    // exist are left out.
    let names = names.split_terminator('\0');
    let names = names.filter(|name| cargo::root().join(name).exists());
    Ok(names.map(str::to_owned).collect())
}

pub(super) fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
}

/// The numbers of the lines of a Markdown text that are code between fences.
pub(super) fn code_lines(text: &str) -> BTreeSet<usize> {
    let mut is_code = false;
    let mut lines = BTreeSet::new();
    for (number, line) in numbered(text) {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if is_code {
            lines.insert(number);
        }
    }
    lines
}

/// Whether a line is too long and can be broken. A single word (such as a link) and a row of a
/// table cannot be broken.
fn is_long(line: &str) -> bool {
    let text = line
        .trim()
        .trim_start_matches(['/', '!', '#', '*', '-', ' ']);
    let can_be_broken = text.contains(char::is_whitespace) && !text.starts_with('|');
    line.chars().count() > COLUMNS && can_be_broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_may_have_100_characters_however_many_bytes_they_take() {
        assert!(!is_long(&format!("é{}", " é".repeat(49))));
        assert!(is_long(&format!("é{} x", " é".repeat(49))));
    }

    #[test]
    fn a_single_word_cannot_be_broken() {
        for before in ["", "    ", "    /// ", "//! ", "// ", "# ", "* "] {
            assert!(!is_long(&format!("{before}{}", "x".repeat(200))));
            assert!(is_long(&format!("{before}{} y", "x".repeat(200))));
        }
    }

    #[test]
    fn the_row_of_a_table_cannot_be_broken() {
        assert!(!is_long(&format!("| x {} |", "x".repeat(200))));
        assert!(!is_long(&format!("//! | x {} |", "x".repeat(200))));
    }

    #[test]
    fn code_is_what_is_between_fences() {
        let text = "one\n```sh\ncode\n```\ntwo\n  ```\n  code\n  ```\nthree\n";
        assert_eq!(code_lines(text), BTreeSet::from([3, 7]));
    }
}
