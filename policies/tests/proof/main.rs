//! Tests the compiled filters of all architectures without executing them. An interpreter of
//! classic BPF tries every rule of every context, with argument values at and just beyond the
//! limits of the rule's comparisons.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod promises;

use std::path::PathBuf;

use policies::compiler::interpreter::{CallData, run};
use policies::compiler::{
    Arch, Clause, Instruction, Options, Policy, call_name, compile, decide, load,
};
use policies::{Context, program, sources};

const KILL: u32 = 0x8000_0000;

fn policy(arch: Arch, context: Context) -> Policy {
    let path = PathBuf::from(arch.name()).join(format!("{context}.policy"));
    let loaded = load(&sources(), &path, &Options::default()).unwrap();
    Policy::merge(&loaded, arch).unwrap()
}

fn each(mut check: impl FnMut(Arch, Context, &Policy, &[Instruction])) {
    for arch in Arch::ALL {
        for context in Context::all() {
            let policy = policy(arch, context);
            check(arch, context, &policy, program(arch, context));
        }
    }
}

fn returned(program: &[Instruction], arch: Arch, number: u32, args: [u64; 6]) -> u32 {
    let arch = arch.audit();
    run(program, &CallData { number, arch, args }).unwrap()
}

/// Arguments for which the clause holds. `None` if a short search finds no such arguments.
fn witness(clause: &Clause) -> Option<[u64; 6]> {
    let mut args = [0; 6];
    for arg in 0..6u8 {
        let atoms = clause.atoms().iter().filter(|atom| atom.arg == arg);
        let atoms: Vec<_> = atoms.collect();
        let values = atoms.iter().map(|atom| atom.value);
        let both = |a: u64| atoms.iter().map(move |atom| a & atom.value);
        let candidates = values.clone().chain(values.flat_map(both)).chain([0, 1]);
        let near = candidates.flat_map(|v| [v, v.wrapping_add(1), v.wrapping_sub(1)]);
        let mut good = near.filter(|v| atoms.iter().all(|atom| atom.op.holds(*v, atom.value)));
        args[usize::from(arg)] = good.next()?;
    }
    Some(args)
}

/// Values near the value of a comparison, and values that differ from it in one bit.
fn around(arch: Arch, value: u64) -> impl Iterator<Item = u64> {
    let width = if arch.is_64_bit() { 64 } else { 32 };
    let mask = u64::MAX >> (64 - width);
    let bits = (0..width).map(move |bit| value ^ (1 << bit));
    let near = [
        value,
        value.wrapping_add(1),
        value.wrapping_sub(1),
        0,
        u64::MAX,
    ];
    bits.chain(near).map(move |v| v & mask)
}

#[test]
fn the_embedded_programs_are_those_of_the_policies() {
    each(|_, _, policy, program| assert_eq!(compile(policy).unwrap(), program));
}

#[test]
fn every_rule_does_what_it_says_and_no_more() {
    let mut tried = 0;
    each(|arch, context, policy, program| {
        for (number, call) in &policy.calls {
            for rule in call.chains.iter().flat_map(|chain| &chain.rules) {
                let what = format!("{arch}/{context} {}: {rule}", call.name);
                let args = witness(&rule.clause).expect(&what);
                let got = returned(program, arch, *number, args);
                assert_eq!(got, rule.action.code(), "{what}");
                for atom in rule.clause.atoms() {
                    for value in around(arch, atom.value) {
                        let mut args = args;
                        args[usize::from(atom.arg)] = value;
                        let expected = decide(policy, *number, &args).action.code();
                        let got = returned(program, arch, *number, args);
                        assert_eq!(got, expected, "{what} with {value:#x}");
                        tried += 1;
                    }
                }
            }
        }
    });
    assert!(tried > 10_000, "{tried}");
}

#[test]
fn a_call_that_no_rule_names_ends_the_process() {
    each(|arch, _, policy, program| {
        for number in (0..1024).chain([0x3fff_ffff, 0x4000_0000, 0x8000_0000, u32::MAX]) {
            if !policy.calls.contains_key(&number) {
                assert_eq!(returned(program, arch, number, [0; 6]), KILL, "{number}");
            }
        }
    });
}

#[test]
fn a_call_of_another_architecture_ends_the_process() {
    each(|arch, _, policy, program| {
        let foreign = Arch::ALL.into_iter().filter(|other| *other != arch);
        // The other architectures, i386, and two numbers that are not an architecture.
        let foreign = foreign.map(Arch::audit).chain([0x4000_0003, 0, u32::MAX]);
        for foreign in foreign {
            for number in policy.calls.keys() {
                let call = CallData {
                    number: *number,
                    arch: foreign,
                    args: [0; 6],
                };
                assert_eq!(run(program, &call).unwrap(), KILL);
            }
        }
    });
}

#[test]
fn programs_are_short() {
    each(|arch, context, _, program| {
        let length = program.len();
        assert!(length < 500, "{arch}/{context}: {length}");
    });
}

#[test]
fn every_architecture_allows_the_same_calls() {
    let names = |arch, context| -> Vec<String> {
        let calls = policy(arch, context).calls;
        let names = calls.keys().map(|number| call_name(arch, *number).unwrap());
        // The replacements below make names comparable between architectures. Some system calls
        // have another name on another architecture, and some exist on old architectures only.
        let names = names.map(|name| name.replace("mmap2", "mmap"));
        let names = names.map(|name| {
            name.trim_end_matches("64")
                .trim_end_matches("_time")
                .to_owned()
        });
        let names = names.map(|name| name.replace("newfstatat", "fstatat"));
        let old = ["open", "readlink", "stat", "lstat", "sigreturn", "unlink"];
        let mut names: Vec<_> = names.filter(|name| !old.contains(&name.as_str())).collect();
        names.sort();
        names.dedup();
        names
    };
    for context in Context::all() {
        let reference = names(Arch::X86_64, context);
        for arch in [Arch::Aarch64, Arch::Arm] {
            assert_eq!(names(arch, context), reference, "{arch}/{context}");
        }
    }
}
