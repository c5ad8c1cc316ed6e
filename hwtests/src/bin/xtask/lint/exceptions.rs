//! The exceptions of the lint's checks and their reasons. Cargo.toml lists them in tables below
//! `[workspace.metadata.lint]`.

use std::collections::BTreeMap;

use cargo_metadata::Metadata;
use hwtests::{Context, Result, ensure};

use super::Findings;

/// The reason for each exception, by the name of the check and the name of the exception.
pub struct Exceptions(BTreeMap<String, BTreeMap<String, String>>);

impl Exceptions {
    /// Reads the lists of exceptions. It is an error if the name of a list is not in `checks`.
    pub fn read(metadata: &Metadata, checks: &[&str]) -> Result<Self> {
        let lists = metadata.workspace_metadata["lint"].clone();
        let lists: BTreeMap<_, _> = serde_json::from_value(lists)
            .context("Cargo.toml: [workspace.metadata.lint] is not made of lists of reasons")?;
        let exceptions = Self(lists);
        for list in exceptions.0.keys() {
            ensure!(
                checks.contains(&list.as_str()),
                "Cargo.toml: [workspace.metadata.lint.{list}] belongs to no check"
            );
        }
        Ok(exceptions)
    }

    /// Returns the problems: findings without an exception, exceptions that are not needed, and
    /// exceptions without a reason.
    pub fn sift(&self, check: &str, findings: Findings) -> Vec<String> {
        let none = BTreeMap::new();
        let listed = self.0.get(check).unwrap_or(&none);
        let unneeded = listed.keys().filter(|name| !findings.contains_key(*name));
        let unneeded = unneeded.map(|name| {
            format!("Cargo.toml: [workspace.metadata.lint.{check}]: remove {name:?}: it is mended")
        });
        let unargued = listed.iter().filter(|(_, reason)| reason.trim().is_empty());
        let unargued = unargued.map(|(name, _)| {
            format!("Cargo.toml: [workspace.metadata.lint.{check}]: {name:?} needs a reason")
        });
        let mut problems: Vec<_> = unneeded.chain(unargued).collect();
        let found = findings.into_iter();
        problems.extend(
            found
                .filter(|(name, _)| !listed.contains_key(name))
                .map(|(_, text)| text),
        );
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exceptions(reason: &str) -> Exceptions {
        let list = BTreeMap::from([("a".to_owned(), reason.to_owned())]);
        Exceptions(BTreeMap::from([("circles".to_owned(), list)]))
    }

    fn found(name: &str) -> Findings {
        BTreeMap::from([(name.to_owned(), format!("{name} is wrong"))])
    }

    #[test]
    fn a_listed_finding_is_no_problem() {
        assert_eq!(exceptions("why").sift("circles", found("a")), [""; 0]);
    }

    #[test]
    fn an_unlisted_finding_and_an_unneeded_exception_are_problems() {
        let problems = exceptions("why").sift("circles", found("b"));
        assert_eq!(problems.len(), 2);
        assert!(problems[0].contains("remove \"a\""), "{problems:?}");
        assert_eq!(problems[1], "b is wrong");
    }

    #[test]
    fn an_exception_needs_a_reason() {
        let problems = exceptions(" ").sift("circles", found("a"));
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("needs a reason"), "{problems:?}");
    }

    #[test]
    fn an_exception_of_one_check_is_none_of_another() {
        assert_eq!(
            exceptions("why").sift("long-files", found("a")),
            ["a is wrong"]
        );
    }
}
