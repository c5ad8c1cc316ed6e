//! Whether documents name files and tests that there are.
//!
//! Looked at is what stands in backticks in the Markdown files of the top folder and of `docs`.

use std::collections::BTreeSet;

use cargo_metadata::Metadata;
use hwtests::Result;

use super::Findings;
use super::text::{code_lines, files, numbered, paths};

/// What the name of a file of this repository ends with.
const ENDINGS: [&str; 7] = [".rs", ".md", ".toml", ".policy", ".svg", ".yml", ".1"];

/// Words of a name that is long enough to be nothing but a test's.
const TEST_WORDS: usize = 5;

/// Finds names in documents that stand for nothing.
pub fn find(_: &Metadata) -> Result<Findings> {
    let names = Names::read()?;
    let mut findings = Findings::new();
    for (document, text) in files(&[":(glob)*.md", ":(glob)docs/*.md"])? {
        let code = code_lines(&text);
        let prose = numbered(&text).filter(|(number, _)| !code.contains(number));
        let wrong = prose.flat_map(|(number, line)| {
            let wrong = names.wrong(line).into_iter();
            wrong.map(move |name| (number, name))
        });
        let problems: Vec<_> = wrong
            .map(|(number, name)| format!("{document}:{number}: there is no `{name}`"))
            .collect();
        if !problems.is_empty() {
            findings.insert(document, problems.join("\n"));
        }
    }
    Ok(findings)
}

/// What documents may name.
struct Names {
    /// Files and folders, by their paths from the top.
    paths: BTreeSet<String>,
    /// Functions of code, and files without their folder and ending.
    words: BTreeSet<String>,
}

impl Names {
    fn read() -> Result<Self> {
        let mut names = Self {
            paths: BTreeSet::new(),
            words: BTreeSet::new(),
        };
        for path in paths(&["."])? {
            names.add_path(&path);
        }
        for (_, code) in files(&["*.rs"])? {
            names.add_functions(&code);
        }
        Ok(names)
    }

    fn add_path(&mut self, path: &str) {
        let folders = path.match_indices('/').map(|(end, _)| &path[..end]);
        self.paths.extend(folders.map(str::to_owned));
        let file = path.rsplit('/').next().unwrap_or(path);
        let stem = file.split('.').next().unwrap_or(file);
        self.words.insert(stem.to_owned());
        self.paths.insert(path.to_owned());
    }

    fn add_functions(&mut self, code: &str) {
        let functions = code.split("fn ").skip(1);
        let functions = functions.filter_map(|rest| rest.split(['(', '<']).next());
        self.words.extend(functions.map(str::to_owned));
    }

    /// The names in a line that stand for nothing.
    fn wrong<'a>(&self, line: &'a str) -> Vec<&'a str> {
        let quoted = line.split('`').skip(1).step_by(2);
        let wrong = quoted.filter(|name| match () {
            () if self.is_path(name) => !self.paths.contains(name.trim_end_matches('/')),
            () if is_test(name) => !self.words.contains(*name),
            () => false,
        });
        wrong.collect()
    }

    /// Whether a name can be nothing but a path in this repository.
    fn is_path(&self, name: &str) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        let Some((first, rest)) = name.split_once('/') else {
            return false;
        };
        let ours = self.paths.contains(first)
            || rest.is_empty()
            || ENDINGS.iter().any(|ending| name.ends_with(ending));
        name.chars().all(plain) && !first.is_empty() && ours
    }
}

/// Whether a name can be nothing but a test's.
fn is_test(name: &str) -> bool {
    let word = |word: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        !word.is_empty() && word.chars().all(plain)
    };
    name.split('_').count() >= TEST_WORDS && name.split('_').all(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let mut names = Names {
            paths: BTreeSet::new(),
            words: BTreeSet::new(),
        };
        names.add_path("src/jail/files.rs");
        names.add_functions("#[test]\nfn one_two_three_four_five() {}");
        names.add_path("policies/arm/a_policy_with_long_name.policy");
        names
    }

    #[test]
    fn files_folders_tests_and_policies_that_exist_are_right() {
        for line in [
            "`src/jail/files.rs`, `src/jail/` and `src`",
            "`one_two_three_four_five` and `a_policy_with_long_name`",
            "`/proc/maps`, `target/bench`, `a/b c.rs`, `read`, `io_uring_setup` and `a::b/c`",
        ] {
            assert_eq!(names().wrong(line), [""; 0], "{line}");
        }
    }

    #[test]
    fn what_does_not_exist_is_found() {
        for name in [
            "src/jail/none.rs",
            "src/jail.rs",
            "gone/lib.rs",
            "gone/",
            "src/none",
            "one_two_three_four_six",
        ] {
            let line = format!("see `src` and `{name}`, and read");
            assert_eq!(names().wrong(&line), [name]);
        }
    }
}
