//! Tests of programs with long jumps, and of the default action.

use super::*;
use crate::interpreter::{CallData, run};
use crate::rule::Clause;
use crate::{CallRules, RuleChain, tables};

/// A policy with `each` distinct conditions for each system call in `names`.
fn large(arch: Arch, names: &[&'static str], each: u64) -> Policy {
    let mut policy = Policy::deny_all(arch);
    for name in names {
        let chain = |i| RuleChain {
            rules: vec![Rule {
                clause: Clause::new(vec![
                    Atom {
                        arg: 1,
                        op: Op::Equal,
                        value: i * 3,
                    },
                    Atom {
                        arg: 2,
                        op: Op::NotEqual,
                        value: i,
                    },
                ]),
                action: if i % 2 == 0 {
                    Action::Allow
                } else {
                    Action::Errno(i as u16)
                },
            }],
            from: Vec::new(),
        };
        let chains = (0..each).map(chain).collect();
        let number = tables::call_number(arch, name).unwrap();
        policy.calls.insert(number, CallRules { name, chains });
    }
    policy
}

fn check(policy: &Policy, each: u64) {
    let program = compile(policy).unwrap();
    for number in policy.calls.keys() {
        for i in (0..each).step_by(7).chain([each - 1, each, 1 << 33]) {
            for second in [i, i + 1] {
                let args = [9, i * 3, second, 0, 0, 0];
                let call = CallData {
                    number: *number,
                    arch: policy.arch.audit(),
                    args,
                };
                let expected = crate::decide(policy, *number, &args).action.code();
                assert_eq!(run(&program, &call).unwrap(), expected, "{number} {args:?}");
            }
        }
    }
}

#[test]
fn jumps_of_any_distance_reach_their_target() {
    for arch in Arch::ALL {
        check(&large(arch, &["ioctl"], 400), 400);
        check(&large(arch, &["read", "write", "ioctl", "prctl"], 100), 100);
    }
}

#[test]
fn deny_all_ends_the_process_on_every_call() {
    for arch in Arch::ALL {
        let program = compile(&Policy::deny_all(arch)).unwrap();
        for number in (0..600).chain([u32::MAX, 1 << 30]) {
            let call = CallData {
                number,
                arch: arch.audit(),
                args: [0; 6],
            };
            assert_eq!(run(&program, &call).unwrap(), 0x8000_0000);
        }
    }
}

#[test]
fn with_default_replaces_only_the_default_action() {
    let mut policy = large(Arch::X86_64, &["read"], 4);
    let killed = Rule {
        clause: Clause::default(),
        action: Action::KillProcess,
    };
    let chain = RuleChain {
        rules: vec![killed],
        from: Vec::new(),
    };
    policy.calls.insert(
        1,
        CallRules {
            name: "write",
            chains: vec![chain],
        },
    );
    let program = compile(&policy).unwrap();
    let trapping = with_default(&program, Action::Trap);
    let result = |number, arch: Arch| {
        let call = CallData {
            number,
            arch: arch.audit(),
            args: [0; 6],
        };
        run(&trapping, &call)
    };
    assert_eq!(result(2, Arch::X86_64), Ok(Action::Trap.code()));
    assert_eq!(result(1, Arch::X86_64), Ok(Action::KillProcess.code()));
    assert_eq!(result(2, Arch::Arm), Ok(Action::KillProcess.code()));
    policy.default = Action::Trap;
    assert_eq!(compile(&policy).unwrap(), trapping);
}
