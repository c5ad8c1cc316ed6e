//! Tests the meaning of each form of the policy language, by running the compiled program.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{ALLOW, KILL, errno, merge, policy, returned};
use policy_compiler::{Action, Arch, Memory, Options, Policy, compile, load};
use std::path::Path;

/// Whether the x86_64 program of the policy `text` allows a system call.
fn allows(text: &str, name: &str, args: &[u64]) -> bool {
    result(text, name, args) == ALLOW
}

fn result(text: &str, name: &str, args: &[u64]) -> u32 {
    let program = compile(&policy(text).unwrap()).unwrap();
    returned(&program, Arch::X86_64, name, args)
}

#[test]
fn only_listed_calls_are_allowed() {
    let text = "read: 1\nwrite: allow\n{ close, dup }: 1\n";
    for name in ["read", "write", "close", "dup"] {
        assert!(allows(text, name, &[]), "{name}");
    }
    assert_eq!(result(text, "open", &[]), KILL);
}

#[test]
fn comments_blank_lines_and_line_continuations_are_skipped() {
    let text =
        "# nothing\n\n  read: 1 # why\n\twrite: \\\n  arg0 == 1 \\\n  || arg0 == 2\r\ndup: 1";
    assert!(allows(text, "read", &[]) && allows(text, "dup", &[]));
    assert!(allows(text, "write", &[2]) && !allows(text, "write", &[3]));
}

#[test]
fn each_operator_compares_all_64_bits() {
    let high = 1 << 32;
    for (op, yes, no) in [
        ("== 5", vec![5], vec![4, high | 5]),
        ("!= 5", vec![4, 6, high | 5], vec![5]),
        ("< 5", vec![0, 4], vec![5, high]),
        ("<= 5", vec![5], vec![6, high | 5]),
        ("> 5", vec![6, high], vec![5]),
        (">= 5", vec![5, high], vec![4]),
        (
            "> 0x100000005",
            vec![high | 6, high * 2],
            vec![high | 5, 6, high],
        ),
        (
            ">= 0x100000005",
            vec![high | 5, high * 2],
            vec![high | 4, 5, 6],
        ),
        ("< 0x100000005", vec![high | 4, 6], vec![high | 5, high * 2]),
        (
            "<= 0x100000005",
            vec![high | 5, 6],
            vec![high | 6, high * 2],
        ),
        ("& 6", vec![2, 7, high | 4], vec![0, 1, 8, high]),
        ("& 0x100000001", vec![1, high], vec![2, high << 1]),
        ("in 6", vec![0, 2, 6], vec![1, 7, high]),
        ("in ~PROT_EXEC", vec![0, 3, high | 3], vec![4, 7, high | 4]),
    ] {
        let text = format!("read: arg0 {op}");
        for value in yes {
            assert!(allows(&text, "read", &[value]), "{value:#x} {op}");
        }
        for value in no {
            assert!(!allows(&text, "read", &[value]), "{value:#x} {op}");
        }
    }
}

#[test]
fn values_may_have_any_base_and_operators() {
    for value in [
        "255",
        "0xff",
        "0XfF",
        "0377",
        "0o377",
        "0b11111111",
        "0xf0|0x0f",
        "(0xf0 | 15)",
        "~(~0xff)",
    ] {
        assert!(
            allows(&format!("read: arg0 == {value}"), "read", &[255]),
            "{value}"
        );
    }
    assert!(allows(
        "read: arg5 == -1",
        "read",
        &[0, 0, 0, 0, 0, u64::MAX]
    ));
    assert!(allows("read: arg0 == AT_FDCWD", "read", &[-100i64 as u64]));
    assert!(allows("read: arg0 == PROT_READ|PROT_WRITE", "read", &[3]));
}

#[test]
fn and_binds_closer_than_or() {
    let text = "mmap: arg0 == 1 && arg1 == 2 || arg2 == 3";
    assert!(allows(text, "mmap", &[1, 2, 0]) && allows(text, "mmap", &[0, 0, 3]));
    assert!(!allows(text, "mmap", &[1, 0, 0]));
}

#[test]
fn the_action_after_a_condition_applies_if_the_condition_holds() {
    let text = "read: arg0 == 1; return EPERM\nwrite: {arg0 == 1, return ENOENT}";
    assert_eq!(result(text, "read", &[1]), errno(1));
    assert_eq!(result(text, "read", &[2]), KILL);
    assert_eq!(result(text, "write", &[1]), ALLOW);
    assert_eq!(result(text, "write", &[2]), errno(2));
}

#[test]
fn filters_of_one_statement_are_tried_in_order() {
    let text = "read: {arg0 == 1; return EPERM, arg0 < 9, return 2}";
    assert_eq!(result(text, "read", &[1]), errno(1));
    assert_eq!(result(text, "read", &[2]), ALLOW);
    assert_eq!(result(text, "read", &[9]), errno(2));
}

#[test]
fn every_action_has_a_name() {
    for (word, action) in [
        ("allow", Action::Allow),
        ("kill", Action::KillProcess),
        ("kill-process", Action::KillProcess),
        ("kill-thread", Action::KillThread),
        ("trap", Action::Trap),
        ("trace", Action::Trace),
        ("log", Action::Log),
        ("user-notify", Action::UserNotify),
        ("return ENOSYS", Action::Errno(38)),
        ("return 0", Action::Errno(0)),
    ] {
        assert_eq!(
            result(&format!("read: {word}"), "read", &[]),
            action.code(),
            "{word}"
        );
    }
    assert_eq!(
        result("@default trap\nread: 1", "write", &[]),
        Action::Trap.code()
    );
}

#[test]
fn statements_for_other_architectures_are_skipped() {
    let text = "read: 1\n{mmap[arch=x86_64,aarch64], mmap2[arch=arm]}: arg2 in ~PROT_EXEC\n\
                dup2[arch=x86_64, arm]: 1\nnosuchcall[arch=riscv64]: 1\n";
    for arch in Arch::ALL {
        let policy = merge(arch, &[("a.policy", text)]).unwrap();
        let names: Vec<_> = policy.calls.values().map(|call| call.name).collect();
        assert_eq!(names.contains(&"dup2"), arch != Arch::Aarch64);
        assert_eq!(names.contains(&"mmap2"), arch == Arch::Arm);
        assert_eq!(names.contains(&"mmap"), arch != Arch::Arm);
    }
}

#[test]
fn arguments_of_arm_have_32_bits() {
    let text = "mmap2: arg2 in ~PROT_EXEC\nread: arg0 == -1\n\
                write: arg0 > 0x7fffffff\ndup: arg0 & 0x80000000";
    let policy = merge(Arch::Arm, &[("a.policy", text)]).unwrap();
    let program = compile(&policy).unwrap();
    let result = |name, args: &[u64]| returned(&program, Arch::Arm, name, args) == ALLOW;
    assert!(result("mmap2", &[0, 0, 0xffff_fffb]) && !result("mmap2", &[0, 0, 4]));
    assert!(result("read", &[0xffff_ffff]) && !result("read", &[0xffff_fffe]));
    assert!(result("write", &[0x8000_0000]) && !result("write", &[0x7fff_ffff]));
    assert!(result("dup", &[0x8000_0001]) && !result("dup", &[1]));
}

#[test]
fn a_file_may_be_included_from_several_files() {
    let files = [
        (
            "t/a.policy",
            "@include ./b/b.policy\n@include ./c.policy\nread: 1",
        ),
        ("t/b/b.policy", "@include ../c.policy\nwrite: 1"),
        ("t/c.policy", "@include ./d.policy"),
        ("t/d.policy", "dup: 1"),
    ];
    let policy = merge(Arch::Aarch64, &files).unwrap();
    assert_eq!(policy.calls.len(), 3);
    let from = &policy.call("dup").unwrap().chains[0].from[0];
    assert_eq!(from.to_string(), "t/d.policy:1:1");
    assert_eq!(from.included_from().unwrap().to_string(), "t/c.policy:1:10");
}

#[test]
fn a_thousand_nested_includes_are_read() {
    let mut memory = Memory::new();
    for i in 0..1000 {
        memory.add(format!("{i}"), format!("@include ./{}\n", i + 1));
    }
    memory.add("1000", "read: 1");
    let loaded = load(&memory, Path::new("0"), &Options::default()).unwrap();
    assert_eq!(Policy::merge(&loaded, Arch::Arm).unwrap().calls.len(), 1);
}

#[test]
fn frequencies_change_nothing() {
    let files = [
        ("a.policy", "@frequency ./a.frequency\nread: 1"),
        ("a.frequency", "# counts\nread: 5\n\nmount: 1\n"),
    ];
    assert_eq!(merge(Arch::X86_64, &files).unwrap().calls.len(), 1);
    let wrong = [files[0], ("a.frequency", "read: many\n")];
    let error = merge(Arch::X86_64, &wrong).unwrap_err().to_string();
    assert!(
        error.contains("expected 'call: count'") && error.contains("a.frequency:1:1"),
        "{error}"
    );
}

#[test]
fn denylists_are_refused_unless_the_options_accept_them() {
    let memory = common::tree(&[("a", "@denylist\nptrace: return EPERM\n")]);
    let mut options = Options::default();
    let error = load(&memory, Path::new("a"), &options).unwrap_err();
    assert!(error.message().contains("denylist"));
    options.denylist = true;
    let loaded = load(&memory, Path::new("a"), &options).unwrap();
    let program = compile(&Policy::merge(&loaded, Arch::X86_64).unwrap()).unwrap();
    assert_eq!(returned(&program, Arch::X86_64, "ptrace", &[]), errno(1));
    assert_eq!(returned(&program, Arch::X86_64, "read", &[]), ALLOW);
    let memory = common::tree(&[("a", "@denylist\nread: 1\n")]);
    let loaded = load(&memory, Path::new("a"), &options).unwrap();
    assert!(Policy::merge(&loaded, Arch::X86_64).is_err());
}
