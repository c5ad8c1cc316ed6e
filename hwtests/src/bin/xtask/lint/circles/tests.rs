use std::fs;

use super::*;

/// Makes a crate from files. Each file has a path, relative to the folder of the crate's root, and
/// a text.
fn krate(files: &[(&str, &str)]) -> Crate {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    Crate::load(&folder.path().join("lib.rs")).unwrap()
}

/// The members of each circle of modules in a crate. `text` is the text of the crate's root file.
fn circles_in(text: &str) -> Vec<Vec<String>> {
    let circles = circles(&krate(&[("lib.rs", text)])).into_iter();
    circles
        .map(|circle| {
            circle
                .members
                .iter()
                .map(|member| member.join("::"))
                .collect()
        })
        .collect()
}

const NONE: [[&str; 0]; 0] = [];

#[test]
fn siblings_that_import_each_other_are_a_circle() {
    let text = "mod a { use crate::b::B; pub struct A; } mod b { use super::a; pub struct B; }";
    assert_eq!(circles_in(text), [["a", "b"]]);
}

#[test]
fn siblings_that_import_one_way_are_no_circle() {
    let text = "mod a { use crate::b::B; use crate::c::C; }
        mod b { use crate::c::C; pub struct B; }
        mod c { pub struct C; }";
    assert_eq!(circles_in(text), NONE);
}

#[test]
fn a_circle_may_lead_through_others_and_leaves_out_who_only_looks_on() {
    let text = "mod a { use crate::b; } mod b { use crate::c; } mod c { use crate::a; }
        mod user { use crate::a; } mod used {} mod also { use crate::used; }";
    assert_eq!(circles_in(text), [["a", "b", "c"]]);
}

#[test]
fn two_circles_are_two_findings() {
    let text = "mod a { use crate::b; } mod b { use crate::a; }
        mod c { use crate::d; use crate::a; } mod d { use crate::c; }";
    assert_eq!(circles_in(text), [["a", "b"], ["c", "d"]]);
}

#[test]
fn a_parent_and_its_child_may_name_each_other() {
    let text = "pub struct Root; use a::A;
        mod a { use self::b::B; pub struct A; mod b { use super::A; use crate::Root; } }";
    assert_eq!(circles_in(text), NONE);
}

#[test]
fn what_descendants_name_counts_for_the_siblings_that_hold_them() {
    let text = "mod a { mod deep { mod deeper { use crate::b::Any; } } }
        mod b { mod deep { use crate::a::Other; } }";
    assert_eq!(circles_in(text), [["a", "b"]]);
}

#[test]
fn circles_below_the_root_are_found() {
    let text = "mod a { mod b { use super::c::C; } mod c { use crate::a::b::B; } }";
    assert_eq!(circles_in(text), [["a::b", "a::c"]]);
}

#[test]
fn a_name_is_followed_to_the_module_that_defines_it() {
    let text = "pub use a::A; mod a { use crate::b::B; pub struct A; }
        mod b { use crate::A; pub struct B; }";
    assert_eq!(circles_in(text), [["a", "b"]]);
    let renamed = text.replace("pub use a::A;", "pub use crate::a::{A as Z};");
    assert_eq!(
        circles_in(&renamed.replace("crate::A", "crate::Z")),
        [["a", "b"]]
    );
    let glob = text.replace("pub use a::A;", "pub use a::*;");
    assert_eq!(circles_in(&glob), [["a", "b"]]);
}

#[test]
fn a_name_is_followed_through_several_exports() {
    let text = "pub use all::*; mod all { pub use crate::renamed::Z; }
        mod renamed { pub use super::a::A as Z; } mod a { use crate::b::B; pub struct A; }
        mod b { use crate::Z; pub struct B; }";
    assert_eq!(circles_in(text), [["a", "b"]]);
}

#[test]
fn an_item_hides_what_a_glob_brings() {
    let text = "pub use a::*; pub fn g() {} mod a { use crate::b::B; pub fn g() {} }
        mod b { use crate::g; pub struct B; }";
    assert_eq!(circles_in(text), NONE);
}

#[test]
fn what_the_root_itself_defines_or_takes_from_elsewhere_is_nobodys() {
    let text = "pub use std::fs::File; pub const SIZE: u32 = 1;
        mod a { use crate::b::B; } mod b { use crate::File; use crate::SIZE; pub struct B; }";
    assert_eq!(circles_in(text), NONE);
}

#[test]
fn exports_that_lead_in_a_circle_end() {
    let text = "pub use a::X; mod a { pub use crate::X; pub use crate::*; } pub use a::*;";
    assert_eq!(circles_in(text), NONE);
}

#[test]
fn paths_in_types_expressions_and_macros_count_as_imports() {
    for use_of_a in [
        "fn f(_: Option<crate::a::A>) {}",
        "fn f() { super::a::g::<u32>() }",
        "impl crate::a::A {}",
        "fn f() { println!(\"{}\", crate::a::g()) }",
        "fn f() { vec![(1, [super::a::g()])]; }",
        "fn f() { use crate::a::g; }",
        "macro_rules! m { () => { $crate::a::g() } }",
        "crate::a::m!();",
    ] {
        let text = format!("mod a {{ use crate::b; }} mod b {{ {use_of_a} }}");
        assert_eq!(circles_in(&text), [["a", "b"]], "{use_of_a}");
    }
}

#[test]
fn tests_docs_and_visibility_count_as_nothing() {
    for no_use_of_a in [
        "#[cfg(test)] mod tests { use crate::a::A; }",
        "#[cfg(all(test, unix))] use crate::a::A;",
        "#[cfg(any(test))] fn f() { crate::a::g() }",
        "impl S { #[cfg(test)] fn f() { crate::a::g() } }",
        "/// [`crate::a::A`]\npub struct S;",
        "mod c { pub(in crate::a) struct S; }",
        "fn f() { \"crate::a::A\"; /* crate::a::A */ }",
    ] {
        let text = format!("mod a {{ use crate::b; }} mod b {{ {no_use_of_a} }}");
        assert_eq!(circles_in(&text), NONE, "{no_use_of_a}");
    }
}

#[test]
fn code_that_a_feature_also_builds_counts() {
    for condition in [
        "not(test)",
        "any(test, feature = \"fuzzing\")",
        "feature = \"test\"",
    ] {
        let text =
            format!("mod a {{ use crate::b; }} #[cfg({condition})] mod b {{ use crate::a; }} ");
        assert_eq!(circles_in(&text), [["a", "b"]], "{condition}");
    }
}

#[test]
fn modules_are_found_in_files_and_a_finding_names_their_lines() {
    let tree = krate(&[
        (
            "lib.rs",
            "mod a;\nmod b;\n#[path = \"elsewhere/c.rs\"]\nmod c;\n",
        ),
        ("a.rs", "mod deep;\n"),
        ("a/deep.rs", "mod deeper;\n"),
        (
            "a/deep/deeper.rs",
            "//! Deep.\n\nuse std::fs;\nuse crate::{\n    b::B,\n    c,\n};\n",
        ),
        ("b/mod.rs", "mod child;\n"),
        ("b/child.rs", "\ntype A = crate::a::A;\n"),
        ("elsewhere/c.rs", "mod d;"),
        ("elsewhere/d.rs", ""),
    ]);
    let modules: Vec<_> = tree.modules.keys().map(|path| path.join("::")).collect();
    assert_eq!(
        modules,
        [
            "",
            "a",
            "a::deep",
            "a::deep::deeper",
            "b",
            "b::child",
            "c",
            "c::d"
        ]
    );

    let [circle] = circles(&tree).try_into().ok().unwrap();
    let sources = |from: &str, to: &str| {
        let edge = (vec![from.to_owned()], vec![to.to_owned()]);
        let sources = circle.edges[&edge].iter();
        sources
            .map(|(file, line)| (file.rsplit('/').next().unwrap(), *line))
            .collect::<Vec<_>>()
    };
    assert_eq!(circle.edges.len(), 2);
    assert_eq!(sources("a", "b"), [("deeper.rs", 5)]);
    assert_eq!(sources("b", "a"), [("child.rs", 2)]);
}

#[test]
fn a_module_without_a_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("lib.rs");
    fs::write(&root, "mod missing;").unwrap();
    let error = Crate::load(&root).err().unwrap().to_string();
    assert!(error.contains("no file for module missing"), "{error}");
}
