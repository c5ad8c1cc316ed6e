//! Programs for the kernel: classic BPF over `struct seccomp_data`.
//!
//! The layout of a program: the architecture is checked (another one ends the process), on x86_64
//! so is that the call is none of x32, then the call's number is searched in a binary tree whose
//! leaves are the calls' rules. The last instruction is the default action, and no other place of
//! the program returns it, so that [`with_default`] can replace it.
//!
//! The `seccompiler` crate has no 32-bit arm, only two actions in a filter and no "any of these
//! bits"; one back end for all three architectures is less than it and what would have to be built
//! round it. In tests it is the reference for what it can say.

use crate::diagnostic::Diagnostic;
use crate::rule::{Action, Atom, Op, Rule};
use crate::{Arch, Call, Policy};

mod emitter;

use emitter::{Emitter, Label, Test};

/// The longest program that the kernel takes: `BPF_MAXINSNS` of linux/bpf_common.h.
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Numbers from here on are x32's: `__X32_SYSCALL_BIT` of asm/unistd.h.
const X32: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data` of linux/seccomp.h.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// One instruction: `struct sock_filter` of linux/filter.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions to skip where the test holds.
    pub jt: u8,
    /// How many where it does not.
    pub jf: u8,
    /// An operand.
    pub k: u32,
}

/// The program of a policy.
///
/// # Errors
///
/// A [`Diagnostic`] when it has more than [`MAX_INSTRUCTIONS`].
pub fn compile(policy: &Policy) -> Result<Vec<Instruction>, Diagnostic> {
    let mut compiler = Compiler {
        emitter: Emitter::new(policy.default.code()),
        arch: policy.arch,
    };
    compiler.policy(policy);
    compiler.emitter.finish().ok_or_else(|| {
        let message = format!("the program has more than {MAX_INSTRUCTIONS} instructions");
        let longest = policy.calls.values().max_by_key(|call| call.chains.len());
        match longest.and_then(|call| call.chains.first()) {
            Some(chain) => Diagnostic::new(message)
                .at(&chain.from[0])
                .advice("this call has the most rules: say less about it"),
            None => Diagnostic::new(message),
        }
    })
}

/// The same program with another default action.
pub fn with_default(program: &[Instruction], action: Action) -> Vec<Instruction> {
    let mut program = program.to_vec();
    if let Some(last) = program.last_mut() {
        last.k = action.code();
    }
    program
}

/// Emits from the end of the program to its begin, so that each jump's target is there already.
struct Compiler {
    emitter: Emitter,
    arch: Arch,
}

impl Compiler {
    fn policy(&mut self, policy: &Policy) {
        let mut entries = Vec::new();
        for (number, call) in &policy.calls {
            entries.push((*number, self.call(call)));
        }
        let kill = self.emitter.ret(Action::KillProcess.code());
        let start = self.search(&entries);
        let start = match self.arch {
            Arch::X86_64 => self.emitter.test(Test::GreaterOrEqual, X32, kill, start),
            Arch::Aarch64 | Arch::Arm => start,
        };
        let start = self.emitter.load(NUMBER, start);
        let kill = self.emitter.ret(Action::KillProcess.code());
        let start = self
            .emitter
            .test(Test::Equal, self.arch.audit(), start, kill);
        self.emitter.load(ARCH, start);
    }

    /// Finds the number that is loaded among those of `entries`, which are sorted.
    fn search(&mut self, entries: &[(u32, Label)]) -> Label {
        let (left, right) = entries.split_at(entries.len() / 2);
        let default = self.emitter.default();
        match (left, right) {
            (_, []) => default,
            ([], [(number, rules), ..]) => self.emitter.test(Test::Equal, *number, *rules, default),
            (_, [(number, _), ..]) => {
                let below = self.search(left);
                let above = self.search(right);
                self.emitter
                    .test(Test::GreaterOrEqual, *number, above, below)
            }
        }
    }

    fn call(&mut self, call: &Call) -> Label {
        let rules = call.chains.iter().flat_map(|chain| &chain.rules);
        let rules: Vec<&Rule> = rules.collect();
        let default = self.emitter.default();
        rules
            .iter()
            .rev()
            .fold(default, |next, rule| self.rule(rule, next))
    }

    /// Returns the rule's action where its clause holds, and goes on to `next` where not.
    fn rule(&mut self, rule: &Rule, next: Label) -> Label {
        let action = self.emitter.ret(rule.action.code());
        let atoms = rule.clause.atoms().iter().rev();
        atoms.fold(action, |holds, atom| self.atom(atom, holds, next))
    }

    fn atom(&mut self, atom: &Atom, yes: Label, no: Label) -> Label {
        let (high, low) = ((atom.value >> 32) as u32, atom.value as u32);
        let number = Number {
            arg: atom.arg,
            high,
            low,
        };
        match atom.op {
            Op::Equal => self.equal(number, yes, no),
            Op::NotEqual => self.equal(number, no, yes),
            Op::Greater => self.above(Test::Greater, number, yes, no),
            Op::GreaterOrEqual => self.above(Test::GreaterOrEqual, number, yes, no),
            Op::LessOrEqual => self.above(Test::Greater, number, no, yes),
            Op::Less => self.above(Test::GreaterOrEqual, number, no, yes),
            Op::AnyBit => self.any_bit(number, yes, no),
            Op::OnlyBits => {
                let others = Number {
                    arg: atom.arg,
                    high: !high,
                    low: !low,
                };
                self.any_bit(others, no, yes)
            }
        }
    }

    fn equal(&mut self, number: Number, yes: Label, no: Label) -> Label {
        let low = self.low(Test::Equal, number, yes, no);
        self.high(Test::Equal, number, low, no)
    }

    /// The high halves decide where they differ, the low ones where not.
    fn above(&mut self, test: Test, number: Number, yes: Label, no: Label) -> Label {
        let low = self.low(test, number, yes, no);
        if !self.arch.is_64_bit() {
            return low;
        }
        let same = self.emitter.test(Test::Equal, number.high, low, no);
        self.high(Test::Greater, number, yes, same)
    }

    fn any_bit(&mut self, number: Number, yes: Label, no: Label) -> Label {
        let low = self.low(Test::AnyBit, number, yes, no);
        match number.high {
            0 => low,
            _ => self.high(Test::AnyBit, number, yes, low),
        }
    }

    fn low(&mut self, test: Test, number: Number, yes: Label, no: Label) -> Label {
        let test = self.emitter.test(test, number.low, yes, no);
        self.emitter.load(ARGS + 8 * u32::from(number.arg), test)
    }

    /// Tests the high half; there is none on a 32-bit architecture, where `no` must not be missed:
    /// its values have no high half either.
    fn high(&mut self, test: Test, number: Number, yes: Label, no: Label) -> Label {
        if !self.arch.is_64_bit() {
            return match test {
                Test::AnyBit => no,
                _ => yes,
            };
        }
        let test = self.emitter.test(test, number.high, yes, no);
        self.emitter
            .load(ARGS + 8 * u32::from(number.arg) + 4, test)
    }
}

/// What an argument is compared with, in halves.
#[derive(Clone, Copy)]
struct Number {
    arg: u8,
    high: u32,
    low: u32,
}

#[cfg(test)]
mod tests;
