//! Checks that the files and tests that documents name exist.
//!
//! The check covers names in backticks in the Markdown files of the top folder and of `docs`. If a
//! document names a file after a test, in the same paragraph or table row, the test has to be in
//! this file.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::Metadata;
use hwtests::Result;

use super::Findings;
use super::text::{code_lines, files, numbered, paths};

/// The endings of the names of this repository's files.
const ENDINGS: [&str; 7] = [".rs", ".md", ".toml", ".policy", ".svg", ".yml", ".1"];

/// A name of at least this number of words, separated by underscores, is taken for the name of a
/// test.
const TEST_WORDS: usize = 5;

/// Finds names in documents that do not exist in the repository.
pub fn find(_: &Metadata) -> Result<Findings> {
    let names = Names::read()?;
    let mut findings = Findings::new();
    for (document, text) in files(&[":(glob)*.md", ":(glob)docs/*.md"])? {
        let problems = names.problems(&text);
        let problems = problems
            .iter()
            .map(|(line, problem)| format!("{document}:{line}: {problem}"));
        let problems = problems.collect::<Vec<_>>().join("\n");
        if !problems.is_empty() {
            findings.insert(document, problems);
        }
    }
    Ok(findings)
}

/// The names that documents may mention.
#[derive(Default)]
struct Names {
    /// The paths of files and folders, relative to the top folder.
    paths: BTreeSet<String>,
    /// The names of files, without folder and ending.
    stems: BTreeSet<String>,
    /// The names of functions, with the files that contain them.
    functions: BTreeMap<String, BTreeSet<String>>,
}

impl Names {
    fn read() -> Result<Self> {
        let mut names = Self::default();
        for path in paths(&["."])? {
            names.add_path(&path);
        }
        for (path, code) in files(&["*.rs"])? {
            names.add_functions(&path, &code);
        }
        Ok(names)
    }

    fn add_path(&mut self, path: &str) {
        let folders = path.match_indices('/').map(|(end, _)| &path[..end]);
        self.paths.extend(folders.map(str::to_owned));
        let file = path.rsplit('/').next().unwrap_or(path);
        let stem = file.split('.').next().unwrap_or(file);
        self.stems.insert(stem.to_owned());
        self.paths.insert(path.to_owned());
    }

    fn add_functions(&mut self, path: &str, code: &str) {
        let functions = code.split("fn ").skip(1);
        for name in functions.filter_map(|rest| rest.split(['(', '<']).next()) {
            let files = self.functions.entry(name.to_owned()).or_default();
            files.insert(path.to_owned());
        }
    }

    /// The problems in the text of a document, each with the number of the line that has the
    /// problem.
    fn problems(&self, document: &str) -> Vec<(usize, String)> {
        let code = code_lines(document);
        let mut problems = Vec::new();
        // The tests that the paragraph or table row has named so far, without a file after them.
        let mut tests = Vec::new();
        for (number, line) in numbered(document).filter(|(number, _)| !code.contains(number)) {
            if line.is_empty() || line.starts_with('|') {
                tests.clear();
            }
            for name in line.split('`').skip(1).step_by(2) {
                let found = self.problems_of(name, &mut tests);
                problems.extend(found.into_iter().map(|problem| (number, problem)));
            }
        }
        problems
    }

    fn problems_of<'a>(&self, name: &'a str, tests: &mut Vec<&'a str>) -> Vec<String> {
        if self.is_path(name) {
            if !self.paths.contains(name.trim_end_matches('/')) {
                return vec![format!("there is no `{name}`")];
            }
            let elsewhere = tests.drain(..);
            let elsewhere = elsewhere.filter(|test| !self.functions[*test].contains(name));
            return elsewhere
                .map(|test| format!("`{test}` is not in `{name}`"))
                .collect();
        }
        if is_test(name) && self.functions.contains_key(name) {
            tests.push(name);
        } else if is_test(name) && !self.stems.contains(name) {
            return vec![format!("there is no `{name}`")];
        }
        Vec::new()
    }

    /// Whether a name is taken for a path in this repository.
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

/// Whether a name is taken for the name of a test.
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
        let mut names = Names::default();
        names.add_path("src/jail/files.rs");
        names.add_functions(
            "src/jail/files.rs",
            "#[test]\nfn one_two_three_four_five() {}",
        );
        names.add_path("policies/arm/a_policy_with_long_name.policy");
        names
    }

    #[test]
    fn files_folders_tests_and_policies_that_exist_are_right() {
        let document = "`src/jail/files.rs`, `src/jail/` and `src`\n\
            `one_two_three_four_five` and `a_policy_with_long_name`\n\
            (`src/jail/files.rs`)\n\
            `/proc/maps`, `target/bench`, `a/b c.rs`, `read`, `io_uring_setup` and `a::b/c`\n\
            ```\n`src/none`\n```\n";
        assert_eq!(names().problems(document), []);
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
            let document = format!("First.\nSee `src` and `{name}`, and read.");
            let expected = (2, format!("there is no `{name}`"));
            assert_eq!(names().problems(&document), [expected]);
        }
    }

    #[test]
    fn a_test_that_moved_to_another_file_is_found() {
        let document = "| `one_two_three_four_five` (`src/jail`) |";
        let problem = "`one_two_three_four_five` is not in `src/jail`".to_owned();
        assert_eq!(names().problems(document), [(1, problem)]);
        let apart = "| `one_two_three_four_five` |\n| `src/jail` |";
        assert_eq!(names().problems(apart), []);
    }
}
