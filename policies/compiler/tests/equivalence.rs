//! Tests with random policies. They check that the compiled program follows the rules, agrees with
//! `seccompiler`, and does not depend on the order of includes.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::tree;
use policy_compiler::interpreter::{CallData, run};
use policy_compiler::{
    Action, Arch, Instruction, Options, Policy, call_number, compile, decide, load,
};
use proptest::prelude::*;
use std::path::Path;

/// Names of system calls that all architectures have.
const CALLS: [&str; 5] = ["read", "write", "close", "ioctl", "prctl"];
const OPS: [&str; 8] = ["==", "!=", "<", "<=", ">", ">=", "&", "in"];
/// Numbers near which comparisons are most likely to be wrong.
const NUMBERS: [u64; 10] = [
    0,
    1,
    4,
    5,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0005,
    u64::MAX,
];

fn number(arch: Arch) -> impl Strategy<Value = u64> {
    let mask = if arch.is_64_bit() {
        u64::MAX
    } else {
        u32::MAX.into()
    };
    let near = (0..NUMBERS.len(), 0..3u64);
    near.prop_map(move |(at, more)| NUMBERS[at].wrapping_add(more).wrapping_sub(1) & mask)
}

fn atom(arch: Arch) -> impl Strategy<Value = String> {
    (0..3, 0..OPS.len(), number(arch))
        .prop_map(|(arg, op, value)| format!("arg{arg} {} {value:#x}", OPS[op]))
}

fn condition(arch: Arch) -> impl Strategy<Value = String> {
    let clause = prop::collection::vec(atom(arch), 1..4).prop_map(|atoms| atoms.join(" && "));
    prop::collection::vec(clause, 1..3).prop_map(|clauses| clauses.join(" || "))
}

/// A random statement whose only action is allow. Two such statements never conflict.
fn allowing(arch: Arch) -> impl Strategy<Value = String> {
    let filter = prop_oneof![1 => Just("1".to_owned()), 6 => condition(arch)];
    (0..CALLS.len(), filter).prop_map(|(call, filter)| format!("{}: {filter}", CALLS[call]))
}

/// A random statement of ordered filters with different actions.
fn ordered(arch: Arch) -> impl Strategy<Value = String> {
    let action = prop_oneof![Just(""), Just("; return EPERM"), Just("; trap")];
    let filter = (condition(arch), action).prop_map(|(condition, action)| condition + action);
    let last = prop_oneof![Just(", return 5"), Just(", 1"), Just(", kill"), Just("")];
    (prop::collection::vec(filter, 1..4), last)
        .prop_map(|(filters, last)| format!("fcntl: {{{}{last}}}", filters.join(", ")))
}

fn arch() -> impl Strategy<Value = Arch> {
    prop::sample::select(Arch::ALL.to_vec())
}

/// A random architecture, random statements, and arguments to try.
fn case() -> impl Strategy<Value = (Arch, Vec<String>, Vec<[u64; 6]>)> {
    arch().prop_flat_map(|arch| {
        let args = prop::array::uniform6(number(arch));
        (
            Just(arch),
            prop::collection::vec(allowing(arch), 1..12)
                .prop_flat_map(move |list| (Just(list), prop::option::of(ordered(arch))))
                .prop_map(|(mut list, ordered)| {
                    list.extend(ordered);
                    list
                }),
            prop::collection::vec(args, 1..24),
        )
    })
}

fn merge(arch: Arch, files: &[(&str, &str)]) -> Policy {
    let loaded = load(&tree(files), Path::new(files[0].0), &Options::default()).unwrap();
    Policy::merge(&loaded, arch).unwrap()
}

fn returns(program: &[Instruction], arch: Arch, number: u32, args: [u64; 6]) -> u32 {
    run(
        program,
        &CallData {
            number,
            arch: arch.audit(),
            args,
        },
    )
    .unwrap()
}

/// Splits the statements into the files `l` and `r`. A third file includes both files in the order
/// `order`.
fn files(statements: &[String], order: [&str; 2]) -> Vec<(&'static str, String)> {
    let (left, right) = statements.split_at(statements.len() / 2);
    let top = format!("@include ./{}\n@include ./{}\n", order[0], order[1]);
    vec![
        ("top", top),
        ("l", left.join("\n") + "\n"),
        ("r", right.join("\n") + "\n"),
    ]
}

fn merge_files(arch: Arch, files: &[(&'static str, String)]) -> Policy {
    let files: Vec<_> = files
        .iter()
        .map(|(name, text)| (*name, text.as_str()))
        .collect();
    merge(arch, &files)
}

proptest! {
    #[test]
    fn the_program_does_what_the_rules_say((arch, statements, tries) in case()) {
        let whole = merge(arch, &[("a", &statements.join("\n"))]);
        let program = compile(&whole).unwrap();
        // The expected action is the action of the first statement that decides the system call. If
        // no statement decides, it is the default action.
        let parts: Vec<_> = statements.iter().map(|text| merge(arch, &[("a", text)])).collect();
        for args in tries {
            for name in CALLS.iter().chain(&["fcntl", "dup"]) {
                let number = call_number(arch, name).unwrap();
                let mut decisions = parts.iter().map(|part| decide(part, number, &args));
                let alone = decisions.find(|decision| decision.because.is_some());
                let alone = alone.map_or(Action::KillProcess, |decision| decision.action);
                prop_assert_eq!(decide(&whole, number, &args).action, alone);
                prop_assert_eq!(returns(&program, arch, number, args), alone.code());
            }
        }
    }

    #[test]
    fn the_order_of_includes_and_statements_changes_nothing((arch, statements, _) in case()) {
        let one = compile(&merge_files(arch, &files(&statements, ["l", "r"]))).unwrap();
        let other = compile(&merge_files(arch, &files(&statements, ["r", "l"]))).unwrap();
        prop_assert_eq!(&one, &other);
        let mut reversed = statements.clone();
        reversed.reverse();
        let reversed = merge(arch, &[("a", &reversed.join("\n"))]);
        prop_assert_eq!(one, compile(&reversed).unwrap());
    }

    #[test]
    fn foreign_architectures_and_x32_are_refused((arch, statements, tries) in case()) {
        let program = compile(&merge(arch, &[("a", &statements.join("\n"))])).unwrap();
        for args in tries {
            for foreign in Arch::ALL.into_iter().filter(|other| *other != arch) {
                let call = CallData { number: 0, arch: foreign.audit(), args };
                prop_assert_eq!(run(&program, &call).unwrap(), 0x8000_0000);
            }
            for number in [0x4000_0000, 0x4000_0001, u32::MAX] {
                prop_assert_eq!(returns(&program, arch, number, args), 0x8000_0000);
            }
        }
    }
}

/// Compares the compiler with `seccompiler` for policies that `seccompiler` can express. These
/// policies use only the action allow, and do not use the operator `&`.
mod reference {
    use super::*;
    use policy_compiler::{Atom, Op};
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule, TargetArch,
    };
    use std::collections::BTreeMap;

    fn target(arch: Arch) -> Option<TargetArch> {
        match arch {
            Arch::X86_64 => Some(TargetArch::x86_64),
            Arch::Aarch64 => Some(TargetArch::aarch64),
            Arch::Arm => None,
        }
    }

    fn condition(atom: &Atom) -> Option<SeccompCondition> {
        let (op, value) = match atom.op {
            Op::Equal => (SeccompCmpOp::Eq, atom.value),
            Op::NotEqual => (SeccompCmpOp::Ne, atom.value),
            Op::Less => (SeccompCmpOp::Lt, atom.value),
            Op::LessOrEqual => (SeccompCmpOp::Le, atom.value),
            Op::Greater => (SeccompCmpOp::Gt, atom.value),
            Op::GreaterOrEqual => (SeccompCmpOp::Ge, atom.value),
            Op::OnlyBits => (SeccompCmpOp::MaskedEq(!atom.value), 0),
            // A single condition of `seccompiler` cannot express "any of these bits".
            Op::AnyBit => return None,
        };
        SeccompCondition::new(atom.arg, SeccompCmpArgLen::Qword, op, value).ok()
    }

    fn rules(policy: &Policy) -> Option<BTreeMap<i64, Vec<SeccompRule>>> {
        let mut all = BTreeMap::new();
        for (number, call) in &policy.calls {
            let mut list = Vec::new();
            for rule in call.chains.iter().flat_map(|chain| &chain.rules) {
                let atoms = rule.clause.atoms();
                if rule.action != Action::Allow {
                    return None;
                }
                if !atoms.is_empty() {
                    let conditions: Option<Vec<_>> = atoms.iter().map(condition).collect();
                    list.push(SeccompRule::new(conditions?).unwrap());
                }
            }
            all.insert(i64::from(*number), list);
        }
        Some(all)
    }

    fn theirs(policy: &Policy) -> Option<Vec<Instruction>> {
        let filter = SeccompFilter::new(
            rules(policy)?,
            SeccompAction::KillProcess,
            SeccompAction::Allow,
            target(policy.arch)?,
        );
        let program: BpfProgram = filter.unwrap().try_into().unwrap();
        let convert = |i: &seccompiler::sock_filter| Instruction {
            code: i.code,
            jt: i.jt,
            jf: i.jf,
            k: i.k,
        };
        Some(program.iter().map(convert).collect())
    }

    proptest! {
        #[test]
        fn the_program_agrees_with_seccompiler((arch, statements, tries) in case()) {
            let policy = merge(arch, &[("a", &statements.join("\n"))]);
            let Some(theirs) = theirs(&policy) else {
                return Ok(());
            };
            let ours = compile(&policy).unwrap();
            for args in tries {
                for name in CALLS {
                    let number = call_number(arch, name).unwrap();
                    prop_assert_eq!(
                        returns(&ours, arch, number, args),
                        returns(&theirs, arch, number, args),
                        "{} {:x?}", name, args
                    );
                }
            }
        }
    }
}
