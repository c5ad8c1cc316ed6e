//! Compiles a policy to a classic BPF program, whose input is a `struct seccomp_data`.
//!
//! A program has these parts:
//!
//! 1. It checks the architecture. A system call of another architecture ends the process.
//! 2. On x86_64, it checks for system calls of the x32 ABI. They end the process, too.
//! 3. It finds the number of the system call by binary search. Each leaf of the search tree has the
//!    rules for one system call.
//! 4. Its last instruction returns the default action. A rule with the same action uses another
//!    return instruction, so [`with_default`] does not change the rule.
//!
//! The `seccompiler` crate is not sufficient. It supports neither 32-bit Arm nor the comparison
//! "any of these bits", and its filters have at most two actions. The code to work around these
//! limits would be longer than this module. Tests compare this compiler with `seccompiler` where
//! `seccompiler` can express the policy.

use crate::diagnostic::Diagnostic;
use crate::rule::{Action, Atom, Op, Rule};
use crate::{Arch, CallRules, MAX_INSTRUCTIONS, Policy};

mod emitter;

use emitter::{Emitter, Label, Test};

/// The lowest number of a system call of the x32 ABI: `__X32_SYSCALL_BIT` of asm/unistd.h.
const X32: u32 = 0x4000_0000;

/// Offsets of fields in `struct seccomp_data` of linux/seccomp.h, in bytes.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// One BPF instruction: `struct sock_filter` of linux/filter.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// The operation code.
    pub code: u16,
    /// The number of instructions to skip if the test holds.
    pub jt: u8,
    /// The number of instructions to skip if the test does not hold.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// Compiles a policy to a seccomp program for the kernel.
///
/// # Errors
///
/// A [`Diagnostic`] when the program has more than [`MAX_INSTRUCTIONS`] instructions.
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
                .advice("this system call has the most rules: simplify them"),
            None => Diagnostic::new(message),
        }
    })
}

/// Copies a program and replaces its default action.
pub fn with_default(program: &[Instruction], action: Action) -> Vec<Instruction> {
    let mut program = program.to_vec();
    if let Some(last) = program.last_mut() {
        last.k = action.code();
    }
    program
}

/// Emits the program from its end to its start, so that the target of each jump exists already.
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

    /// Emits a binary search for the loaded system call number. `entries` are sorted by number.
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

    fn call(&mut self, call: &CallRules) -> Label {
        let rules = call.chains.iter().flat_map(|chain| &chain.rules);
        let rules: Vec<&Rule> = rules.collect();
        let default = self.emitter.default();
        rules
            .iter()
            .rev()
            .fold(default, |next, rule| self.rule(rule, next))
    }

    /// Emits code that returns the action of `rule` if its clause holds, and otherwise continues at
    /// `next`.
    fn rule(&mut self, rule: &Rule, next: Label) -> Label {
        let action = self.emitter.ret(rule.action.code());
        let atoms = rule.clause.atoms().iter().rev();
        atoms.fold(action, |holds, atom| self.atom(atom, holds, next))
    }

    fn atom(&mut self, atom: &Atom, yes: Label, no: Label) -> Label {
        let (high, low) = ((atom.value >> 32) as u32, atom.value as u32);
        let operand = Operand {
            arg: atom.arg,
            high,
            low,
        };
        match atom.op {
            Op::Equal => self.equal(operand, yes, no),
            Op::NotEqual => self.equal(operand, no, yes),
            Op::Greater => self.above(Test::Greater, operand, yes, no),
            Op::GreaterOrEqual => self.above(Test::GreaterOrEqual, operand, yes, no),
            Op::LessOrEqual => self.above(Test::Greater, operand, no, yes),
            Op::Less => self.above(Test::GreaterOrEqual, operand, no, yes),
            Op::AnyBit => self.any_bit(operand, yes, no),
            Op::OnlyBits => {
                let others = Operand {
                    arg: atom.arg,
                    high: !high,
                    low: !low,
                };
                self.any_bit(others, no, yes)
            }
        }
    }

    fn equal(&mut self, operand: Operand, yes: Label, no: Label) -> Label {
        let low = self.low(Test::Equal, operand, yes, no);
        self.high(Test::Equal, operand, low, no)
    }

    /// Compares the high halves of the argument and the value. If they are equal, compares the low
    /// halves.
    fn above(&mut self, test: Test, operand: Operand, yes: Label, no: Label) -> Label {
        let low = self.low(test, operand, yes, no);
        if !self.arch.is_64_bit() {
            return low;
        }
        let same = self.emitter.test(Test::Equal, operand.high, low, no);
        self.high(Test::Greater, operand, yes, same)
    }

    fn any_bit(&mut self, operand: Operand, yes: Label, no: Label) -> Label {
        let low = self.low(Test::AnyBit, operand, yes, no);
        match operand.high {
            0 => low,
            _ => self.high(Test::AnyBit, operand, yes, low),
        }
    }

    fn low(&mut self, test: Test, operand: Operand, yes: Label, no: Label) -> Label {
        let test = self.emitter.test(test, operand.low, yes, no);
        self.emitter.load(ARGS + 8 * u32::from(operand.arg), test)
    }

    /// Tests the high half of the argument. On a 32-bit architecture, both high halves count as
    /// zero: they are equal, and they have no bit set.
    fn high(&mut self, test: Test, operand: Operand, yes: Label, no: Label) -> Label {
        if !self.arch.is_64_bit() {
            return match test {
                Test::AnyBit => no,
                _ => yes,
            };
        }
        let test = self.emitter.test(test, operand.high, yes, no);
        self.emitter
            .load(ARGS + 8 * u32::from(operand.arg) + 4, test)
    }
}

/// The index of an argument, and the high and low half of the value to compare it with.
#[derive(Clone, Copy)]
struct Operand {
    arg: u8,
    high: u32,
    low: u32,
}

#[cfg(test)]
mod tests;
