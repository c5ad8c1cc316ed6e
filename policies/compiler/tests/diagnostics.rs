//! Tests that wrong policies are refused. The errors have a location and advice.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{error, merge, tree};
use policy_compiler::{Arch, Folder, Memory, Options, Policy, compile, load};
use std::path::Path;

#[test]
fn a_mistake_is_shown_with_a_caret() {
    let text = "read: 1\nmmap: arg2 in ~PROT_EXE\n";
    assert_eq!(
        error(text),
        "x86_64 has no constant 'PROT_EXE'\n  \
         --> a.policy:2:16\n   |\n 2 | mmap: arg2 in ~PROT_EXE\n   |                ^^^^^^^^\n  \
         = did you mean 'PROT_EXEC'?"
    );
}

#[test]
fn a_mistake_in_an_included_file_names_the_chain_of_includes() {
    let files = [
        ("top.policy", "read: 1\n@include ./mid.policy"),
        ("mid.policy", "\n  @include ./low.policy"),
        ("low.policy", "reed: 1"),
    ];
    let error = merge(Arch::X86_64, &files).unwrap_err().to_string();
    assert_eq!(
        error,
        "x86_64 has no system call 'reed'\n  \
         --> low.policy:1:1\n   |\n 1 | reed: 1\n   | ^^^^\n   \
         = included from mid.policy:2:12\n   = included from top.policy:2:10\n  \
         = did you mean 'read'?"
    );
}

#[test]
fn every_mistake_has_a_position_and_advice() {
    for (text, position, words) in [
        ("read 1", "1:6", &["expected ':'", "the number 1"][..]),
        (
            "read:",
            "1:6",
            &["expected 1, an action or a condition", "end of the file"],
        ),
        ("read: 2", "1:7", &["expected 1, an action"]),
        ("read: alow", "1:7", &["unknown action 'alow'", "'allow'"]),
        ("read: arg6 == 1", "1:7", &["arg0 to arg5"]),
        ("read: arg0 = 1", "1:12", &["expected one of == !="]),
        ("read: arg0 ==", "1:14", &["expected a number"]),
        ("read: arg0 == 1 &&", "1:19", &["expected an argument"]),
        (
            "read: arg0 == 1 arg1",
            "1:17",
            &["expected the end of the line"],
        ),
        ("read: arg0 == (1", "1:17", &["expected ')'"]),
        (
            "read: arg0 == 0xzz",
            "1:15",
            &["'0xzz' is not a number", "hexadecimal"],
        ),
        ("read: arg0 == 089", "1:15", &["is not a number"]),
        ("read: arg0 == 99999999999999999999", "1:15", &["64 bits"]),
        (
            "read: arg0 == -0x8000000000000001",
            "1:15",
            &["-0x8000000000000001 does not fit"],
        ),
        ("read: return 4096", "1:7", &["4096 is not an error number"]),
        ("read: return EWHAT", "1:14", &["no constant 'EWHAT'"]),
        ("{read, }: 1", "1:8", &["expected a system call"]),
        ("{read: 1", "1:6", &["expected ',' or '}'"]),
        ("read: {1, arg0 == 1}", "1:11", &["never reached", "1:8"]),
        (
            "mmap2: 1",
            "1:1",
            &["no system call 'mmap2'", "exists only on arm"],
        ),
        ("read[arch=z80]: 1", "1:11", &["unknown architecture 'z80'"]),
        ("read[os=linux]: 1", "1:6", &["expected 'arch'"]),
        ("io@group: 1", "1:1", &["named groups"]),
        ("@inclde ./a", "1:1", &["unknown directive", "'include'"]),
        (
            "@include b.policy",
            "1:10",
            &["expected a path", "./NAME.policy"],
        ),
        (
            "@include ./b.policy",
            "1:10",
            &["cannot include './b.policy'", "not found"],
        ),
        ("@include ./a.policy", "1:10", &["includes itself"]),
        ("@default allow\nread: 1", "1:10", &["must not permit"]),
        ("@default log\nread: 1", "1:10", &["must not permit"]),
        (
            "@default trap\n@default kill\nread: 1",
            "2:10",
            &["conflicting default", "1:10"],
        ),
        ("# a \\\nread: 1", "1:1", &["comment ends in a backslash"]),
        ("read: 1 \\ ", "1:9", &["unexpected character", "backslash"]),
        ("read: 1 \u{e9}", "1:9", &["unexpected character"]),
        ("read: 1\u{0}", "1:8", &["unexpected character"]),
    ] {
        let error = error(text);
        for word in [&[&*format!("--> a.policy:{position}\n")], words].concat() {
            assert!(error.contains(word), "{text:?}: no {word:?} in\n{error}");
        }
    }
}

#[test]
fn policies_that_name_no_call_are_refused() {
    for text in ["", "\n# read: 1\n", "@default kill\n", "dup2[arch=arm]: 1"] {
        assert!(error(text).contains("names no system call"), "{text:?}");
    }
}

#[test]
fn conflicts_name_both_locations() {
    let files = [
        ("a.policy", "@include ./b.policy\n@include ./c.policy\n"),
        ("b.policy", "open: return ENOENT\n"),
        ("c.policy", "read: 1\nopen: arg1 == 0\n"),
    ];
    let error = merge(Arch::X86_64, &files).unwrap_err().to_string();
    for word in [
        "conflicting rules for 'open'",
        "b.policy:1:1",
        "c.policy:2:1",
        "a.policy:2:10",
    ] {
        assert!(error.contains(word), "{word}: {error}");
    }
}

#[test]
fn circles_of_includes_are_refused() {
    let files = [
        ("a.policy", "@include ./b.policy"),
        ("b.policy", "@include ./c.policy"),
        ("c.policy", "@include ./b.policy"),
    ];
    let error = merge(Arch::X86_64, &files).unwrap_err().to_string();
    assert!(
        error.contains("b.policy -> c.policy -> b.policy"),
        "{error}"
    );
}

#[test]
fn files_that_are_not_utf8_are_refused() {
    let mut memory = Memory::new();
    memory.add("a", *b"read: 1\nwri\xfete: 1\n");
    let error = load(&memory, Path::new("a"), &Options::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("not UTF-8") && error.contains("a:2:4"),
        "{error}"
    );
}

#[test]
fn files_lines_and_nesting_have_limits() {
    let long = format!("read: 1 #{}\n", "x".repeat(10 << 20));
    assert!(error(&long).contains("more than 1048576 bytes"));
    let long = format!("write: 1\nread: 1 #{}\n", "x".repeat(100_000));
    let shown = error(&long);
    assert!(
        shown.contains("the line has 100010 bytes") && shown.contains("a.policy:2:1"),
        "{shown}"
    );
    assert!(shown.len() < 1000);
    assert!(error(&format!("read: arg0 == {}1", "(".repeat(50_000))).contains("nested too deeply"));
}

#[test]
fn programs_longer_than_the_kernel_accepts_are_refused() {
    let lines = (0..1500).map(|i| format!("ioctl: arg1 == {i} && arg0 == {i}\n"));
    let policy = common::policy(&lines.collect::<String>()).unwrap();
    let error = compile(&policy).unwrap_err().to_string();
    assert!(error.contains("more than 4096 instructions"), "{error}");
    let lines = (0..5000).map(|i| format!("ioctl: arg1 == {i}\n"));
    assert!(common::error(&lines.collect::<String>()).contains("more than 4096 rules"));
}

#[test]
fn numbers_have_to_fit_into_a_register() {
    let text = "read: arg0 == 0x100000000";
    let error = merge(Arch::Arm, &[("a.policy", text)])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("does not fit into a register of arm"),
        "{error}"
    );
    assert!(merge(Arch::Aarch64, &[("a.policy", text)]).is_ok());
}

#[test]
fn files_outside_the_tree_are_refused_unless_allowed() {
    let dir = std::env::temp_dir().join(format!("policy-tree-{}", std::process::id()));
    let tree = dir.join("tree");
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::write(dir.join("secret.policy"), "write: 1\n").unwrap();
    std::fs::write(
        tree.join("a.policy"),
        "@include ../secret.policy\nread: 1\n",
    )
    .unwrap();
    std::fs::write(
        tree.join("m.policy"),
        "@include /usr/share/policy/a.policy\n",
    )
    .unwrap();
    let mut folder = Folder::new(&tree).unwrap();
    let merged = |folder: &Folder, name| {
        let loaded = load(folder, &tree.join(name), &Options::default())?;
        Policy::merge(&loaded, Arch::X86_64)
    };
    let error = merged(&folder, "a.policy").unwrap_err().to_string();
    assert!(error.contains("outside the policy folder"), "{error}");
    folder.allow_anywhere();
    assert_eq!(merged(&folder, "a.policy").unwrap().calls.len(), 2);
    assert!(merged(&folder, "m.policy").is_err());
    folder.map("/usr/share/policy".into(), tree.clone());
    assert_eq!(merged(&folder, "m.policy").unwrap().calls.len(), 2);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn the_error_for_a_missing_policy_names_it() {
    let error = load(&tree(&[]), Path::new("none.policy"), &Options::default()).unwrap_err();
    assert!(error.to_string().contains("none.policy"), "{error}");
}
