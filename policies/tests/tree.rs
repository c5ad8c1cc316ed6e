//! Tests that each context has a policy with the expected includes, and that each policy is used.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use policies::compiler::{Arch, Loaded, Options, Policy, Source, compile, load};
use policies::{Context, policy_names, sources};

#[path = "../build/missing.rs"]
mod missing;

fn read(arch: Arch, name: &str) -> Loaded {
    let path = PathBuf::from(arch.name()).join(format!("{name}.policy"));
    load(&sources(), &path, &Options::default()).unwrap()
}

/// The name of the policy at `path`: its file name without `.policy`.
fn name(path: &Path) -> String {
    path.file_stem().unwrap().to_str().unwrap().to_owned()
}

/// The names of the policies that the loaded policy includes directly.
fn included(loaded: &Loaded) -> BTreeSet<String> {
    let own = loaded
        .includes()
        .filter(|(at, _)| at.position().path == loaded.path());
    own.map(|(_, target)| name(target)).collect()
}

/// The number of statements in the loaded policy, without those in included files.
fn statements(loaded: &Loaded) -> usize {
    let own = loaded
        .statements()
        .filter(|at| at.position().path == loaded.path());
    own.count()
}

#[test]
fn each_context_includes_what_its_properties_say() {
    for arch in Arch::ALL {
        for context in Context::all() {
            let loaded = read(arch, &context.to_string());
            let expected = context.includes().into_iter().map(str::to_owned);
            assert_eq!(included(&loaded), expected.collect(), "{arch}/{context}");
            if context.device().is_some() {
                assert_eq!(statements(&loaded), 0, "{arch}/{context} only includes");
            }
        }
    }
}

#[test]
fn each_device_includes_what_queues_need() {
    for arch in Arch::ALL {
        for context in Context::all() {
            let files = read(arch, &context.to_string());
            let files: BTreeSet<_> = files.files().iter().map(|path| name(path)).collect();
            let has_queues = files.contains("queues");
            assert_eq!(has_queues, context.device().is_some(), "{arch}/{context}");
        }
    }
}

#[test]
fn every_policy_of_the_tree_is_used_and_makes_sense_alone() {
    let sources = sources();
    for path in sources.paths() {
        let arch = path
            .parent()
            .and_then(Path::to_str)
            .and_then(Arch::from_name);
        let arch = arch.unwrap();
        let loaded = load(&sources, path, &Options::default()).unwrap();
        compile(&Policy::merge(&loaded, arch).unwrap()).unwrap();
        let path = path.to_owned();
        let used = |context: Context| read(arch, &context.to_string()).files().contains(&path);
        assert!(
            Context::all().any(used),
            "no context uses {}",
            path.display()
        );
    }
}

#[test]
fn no_policy_makes_a_ring() {
    let sources = sources();
    for path in sources.paths() {
        let text = String::from_utf8(sources.read(path).unwrap()).unwrap();
        assert!(!text.contains("io_uring_setup"), "{}", path.display());
    }
}

/// Copies all policies to a temporary folder. The policies of the device `of` are copied a second
/// time, under the device name `named`.
fn tree_with_copy(of: &str, named: &str) -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    for arch in Arch::ALL {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(arch.name());
        let to = tree.path().join(arch.name());
        fs::create_dir(&to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let file = entry.unwrap().path();
            let name = file.file_name().unwrap().to_str().unwrap();
            fs::copy(&file, to.join(name)).unwrap();
            if name.starts_with(of) {
                fs::copy(&file, to.join(name.replacen(of, named, 1))).unwrap();
            }
        }
    }
    tree
}

#[test]
fn the_build_lists_all_files_that_a_new_device_lacks_on_one_architecture() {
    let tree = tree_with_copy("entropy", "console");
    let new = policy_names()
        .into_iter()
        .filter(|name| name.starts_with("entropy"));
    let new = new.map(|name| name.replacen("entropy", "console", 1));
    let names: BTreeSet<_> = new.chain(policy_names()).collect();
    missing::check(tree.path(), &names).unwrap();

    let of_console: Vec<_> = names
        .iter()
        .filter(|name| name.starts_with("console"))
        .collect();
    assert_eq!(of_console.len(), 5);
    for name in &of_console {
        fs::remove_file(tree.path().join(format!("arm/{name}.policy"))).unwrap();
    }
    let error = missing::check(tree.path(), &names).unwrap_err().to_string();
    let listed: Vec<_> = error.lines().skip(1).map(str::trim).collect();
    let expected: Vec<_> = of_console
        .iter()
        .map(|name| format!("arm/{name}.policy"))
        .collect();
    assert_eq!(listed, expected);
    assert!(error.contains("missing"), "{error}");
}
