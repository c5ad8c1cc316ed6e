//! Checks that the manifest of a library has all fields that a registry shows.

use cargo_metadata::camino::Utf8Path;
use cargo_metadata::{Metadata, Package};
use hwtests::Result;

use super::Findings;

/// The prefix of our packages' names. With the prefix, our packages do not take general names such
/// as "virtio" or "block".
const PREFIX: &str = "vvu";
const LICENSES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-BSD-3-Clause"];
/// The limits of crates.io: the maximum number of keywords of a crate, and the maximum number of
/// characters of a keyword.
const KEYWORDS: usize = 5;
const KEYWORD_LENGTH: usize = 20;

/// Whether a package may be published in a registry.
pub fn is_published(package: &Package) -> bool {
    package
        .publish
        .as_ref()
        .is_none_or(|registries| !registries.is_empty())
}

/// Finds packages whose manifests forbid publishing.
pub fn unpublished(metadata: &Metadata) -> Result<Findings> {
    let packages = metadata.workspace_packages().into_iter();
    let finding = |package: &Package| {
        let text = format!(
            "{}: a library can be published: remove `publish`, or list {} below \
             [workspace.metadata.lint.unpublished]",
            manifest(metadata, package),
            package.name
        );
        (package.name.to_string(), text)
    };
    Ok(packages
        .filter(|package| !is_published(package))
        .map(finding)
        .collect())
}

/// Finds packages that can be published but have incomplete manifests.
pub fn incomplete(metadata: &Metadata) -> Result<Findings> {
    let mut findings = Findings::new();
    for package in metadata.workspace_packages() {
        let lacks = lacks(package).join(", ");
        if is_published(package) && !lacks.is_empty() {
            let text = format!("{}: needs {lacks}", manifest(metadata, package));
            findings.insert(package.name.to_string(), text);
        }
    }
    Ok(findings)
}

/// The path of a package's manifest, relative to the workspace's folder.
fn manifest<'a>(metadata: &Metadata, package: &'a Package) -> &'a Utf8Path {
    let path = &package.manifest_path;
    path.strip_prefix(&metadata.workspace_root).unwrap_or(path)
}

/// The required fields and files that a package lacks.
fn lacks(package: &Package) -> Vec<String> {
    let is_set = |field: &Option<String>| field.as_ref().is_some_and(|text| !text.is_empty());
    let documentation = format!("https://docs.rs/{}", package.name);
    let needs = [
        (
            package.name.starts_with(PREFIX),
            format!("a name that begins with {PREFIX:?}"),
        ),
        (is_set(&package.description), "a description".to_owned()),
        (is_set(&package.license), "a license".to_owned()),
        (package.readme.is_some(), "a readme".to_owned()),
        (package.rust_version.is_some(), "a rust-version".to_owned()),
        (!package.categories.is_empty(), "categories".to_owned()),
        (
            are_keywords(&package.keywords),
            format!("1 to {KEYWORDS} keywords of at most {KEYWORD_LENGTH} characters"),
        ),
        (
            package.documentation.as_ref() == Some(&documentation),
            format!("documentation = {documentation:?}"),
        ),
    ];
    let folder = package.manifest_path.parent();
    let licenses = LICENSES.map(|file| {
        let is_there = folder.is_some_and(|folder| folder.join(file).exists());
        (is_there, format!("a link to {file} beside it"))
    });
    let unmet = needs
        .into_iter()
        .chain(licenses)
        .filter(|(is_met, _)| !is_met);
    unmet.map(|(_, need)| need).collect()
}

fn are_keywords(keywords: &[String]) -> bool {
    let is_short = |word: &String| word.len() <= KEYWORD_LENGTH;
    (1..=KEYWORDS).contains(&keywords.len()) && keywords.iter().all(is_short)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use cargo_metadata::MetadataCommand;

    use super::*;

    /// Makes a crate with `lines` in its manifest and `files` beside its manifest. Returns the
    /// fields and files that the crate lacks, and whether [`unpublished`] finds the crate.
    fn check(lines: &str, files: &[&str]) -> (Vec<String>, bool) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("src")).unwrap();
        for file in ["src/lib.rs"].iter().chain(files) {
            fs::write(folder.path().join(file), "").unwrap();
        }
        let manifest = folder.path().join("Cargo.toml");
        fs::write(
            &manifest,
            format!("[workspace]\n[package]\nversion = \"0.1.0\"\n{lines}"),
        )
        .unwrap();
        let mut command = MetadataCommand::new();
        let metadata = command.manifest_path(manifest).no_deps().exec().unwrap();
        let package = metadata.workspace_packages()[0];
        let is_unpublished = unpublished(&metadata)
            .unwrap()
            .contains_key(package.name.as_str());
        let is_incomplete = incomplete(&metadata)
            .unwrap()
            .contains_key(package.name.as_str());
        let lacks = lacks(package);
        assert_eq!(is_incomplete, !is_unpublished && !lacks.is_empty());
        (lacks, is_unpublished)
    }

    const COMPLETE: &str = r#"
        name = "vvu-x"
        description = "Text"
        license = "MIT"
        readme = "README.md"
        rust-version = "1.95"
        categories = ["virtualization"]
        keywords = ["one", "two", "three", "four", "twenty-characters-xx"]
        documentation = "https://docs.rs/vvu-x"
    "#;
    const FILES: [&str; 3] = ["README.md", LICENSES[0], LICENSES[1]];

    #[test]
    fn a_complete_manifest_lacks_nothing() {
        assert_eq!(check(COMPLETE, &FILES), (vec![], false));
    }

    #[test]
    fn each_field_and_file_is_needed() {
        assert_eq!(check("name = \"x\"", &[]).0.len(), 10);
        for line in COMPLETE
            .lines()
            .filter(|line| line.contains(" = ") && !line.contains("name"))
        {
            let without = COMPLETE.replace(line, "");
            // Cargo finds a README.md even if the field `readme` is missing, so the file has to be
            // missing, too.
            let files = if line.contains("readme") {
                &FILES[1..]
            } else {
                &FILES
            };
            assert_eq!(check(&without, files).0.len(), 1, "{line}");
        }
        assert_eq!(
            check(COMPLETE, &FILES[..2]).0,
            ["a link to LICENSE-BSD-3-Clause beside it"]
        );
    }

    #[test]
    fn a_sixth_keyword_or_a_long_one_is_too_much() {
        for keyword in ["four\", \"five", "more-than-20-characters"] {
            let lacks = check(&COMPLETE.replace("four", keyword), &FILES).0;
            assert_eq!(lacks, ["1 to 5 keywords of at most 20 characters"]);
        }
    }

    #[test]
    fn a_package_that_no_registry_may_have_is_unpublished() {
        assert!(check(&format!("{COMPLETE}\npublish = false"), &FILES).1);
        assert!(check("name = \"x\"\npublish = []", &[]).1);
    }
}
