//! Whether a library's manifest says all that a registry shows of it.

use cargo_metadata::camino::Utf8Path;
use cargo_metadata::{Metadata, Package};
use hwtests::Result;

use super::Findings;

/// What the names of our packages begin with, because "virtio" or "block" belong to nobody.
const PREFIX: &str = "vvu";
const LICENSES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-BSD-3-Clause"];
/// Of crates.io: the most keywords of a crate, and the most characters of one.
const KEYWORDS: usize = 5;
const KEYWORD_LENGTH: usize = 20;

/// Whether a package may be given to a registry.
pub fn is_published(package: &Package) -> bool {
    package
        .publish
        .as_ref()
        .is_none_or(|registries| !registries.is_empty())
}

/// Finds packages that cannot be published.
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

/// Finds packages that can be published and whose manifests lack something.
pub fn incomplete(metadata: &Metadata) -> Result<Findings> {
    let packages = metadata.workspace_packages().into_iter();
    let lacking = packages
        .filter(|package| is_published(package))
        .filter_map(|package| {
            let lacks = lacks(package);
            let text = format!(
                "{}: needs {}",
                manifest(metadata, package),
                lacks.join(", ")
            );
            (!lacks.is_empty()).then(|| (package.name.to_string(), text))
        });
    Ok(lacking.collect())
}

/// A package's manifest, below the workspace's folder.
fn manifest<'a>(metadata: &Metadata, package: &'a Package) -> &'a Utf8Path {
    let path = &package.manifest_path;
    path.strip_prefix(&metadata.workspace_root).unwrap_or(path)
}

/// What a manifest lacks.
fn lacks(package: &Package) -> Vec<String> {
    let is_set = |field: &Option<String>| field.as_ref().is_some_and(|text| !text.is_empty());
    let documentation = format!("https://docs.rs/{}", package.name);
    let keywords = &package.keywords;
    let needs = [
        (
            package.name.starts_with(PREFIX),
            format!("a `name` that begins with {PREFIX:?}"),
        ),
        (is_set(&package.description), "a `description`".to_owned()),
        (is_set(&package.license), "a `license`".to_owned()),
        (package.readme.is_some(), "a `readme`".to_owned()),
        (
            package.rust_version.is_some(),
            "a `rust-version`".to_owned(),
        ),
        (!package.categories.is_empty(), "`categories`".to_owned()),
        (
            (1..=KEYWORDS).contains(&keywords.len())
                && keywords.iter().all(|word| word.len() <= KEYWORD_LENGTH),
            format!("1 to {KEYWORDS} `keywords` of at most {KEYWORD_LENGTH} characters"),
        ),
        (
            package.documentation.as_ref() == Some(&documentation),
            format!("`documentation = {documentation:?}`"),
        ),
    ];
    let folder = package.manifest_path.parent();
    let licenses = LICENSES.map(|file| {
        let is_there = folder.is_some_and(|folder| folder.join(file).exists());
        (is_there, format!("a link to {file} beside it"))
    });
    let all = needs.into_iter().chain(licenses);
    all.filter(|(is_met, _)| !is_met)
        .map(|(_, need)| need)
        .collect()
}
