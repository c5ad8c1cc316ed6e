//! Builds a BPF program from its last instruction to its first.

use std::collections::HashMap;

use super::Instruction;
use crate::MAX_INSTRUCTIONS;

// Operation codes of linux/bpf_common.h.
const LD_W_ABS: u16 = 0x20;
const JMP_JA: u16 = 0x05;
const RET_K: u16 = 0x06;

/// The maximum number of instructions that a conditional jump can skip.
const REACH: usize = u8::MAX as usize;

/// The index of an instruction, counted from the end of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Label(usize);

/// The comparison that a conditional jump makes between the loaded word and a number.
#[derive(Clone, Copy, Debug)]
pub(super) enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
    AnyBit,
}

impl Test {
    /// The operation code of the jump: `BPF_JMP | BPF_K` and the condition.
    fn code(self) -> u16 {
        match self {
            Self::Equal => 0x15,
            Self::Greater => 0x25,
            Self::GreaterOrEqual => 0x35,
            Self::AnyBit => 0x45,
        }
    }
}

pub(super) struct Emitter {
    /// The instructions in reverse order, so the last instruction of the program comes first.
    reversed: Vec<Instruction>,
    /// For each action, the most recently emitted instruction that returns the action.
    returns: HashMap<u32, Label>,
}

impl Emitter {
    /// A program whose last instruction returns `default`.
    pub fn new(default: u32) -> Self {
        let mut emitter = Self {
            reversed: Vec::new(),
            returns: HashMap::new(),
        };
        emitter.push(RET_K, 0, 0, default);
        emitter
    }

    /// The last instruction, which returns the default action.
    pub fn default(&self) -> Label {
        Label(0)
    }

    /// The complete program, or `None` if it is too long for the kernel.
    pub fn finish(mut self) -> Option<Vec<Instruction>> {
        self.reversed.reverse();
        (self.reversed.len() <= MAX_INSTRUCTIONS).then_some(self.reversed)
    }

    /// Emits an instruction that returns an action. An existing instruction for the action is
    /// reused if its distance is less than half of the reach of a conditional jump.
    pub fn ret(&mut self, code: u32) -> Label {
        match self.returns.get(&code) {
            Some(label) if self.distance(*label) < REACH / 2 => *label,
            _ => {
                let label = self.push(RET_K, 0, 0, code);
                self.returns.insert(code, label);
                label
            }
        }
    }

    /// Emits a load of the word at `offset`. The program continues at `next`.
    pub fn load(&mut self, offset: u32, next: Label) -> Label {
        self.jump_far(next, 0);
        self.push(LD_W_ABS, 0, 0, offset)
    }

    /// Emits a conditional jump to `yes` or `no`.
    pub fn test(&mut self, test: Test, k: u32, yes: Label, no: Label) -> Label {
        // If `yes` is too far away, a jump instruction is inserted. `no` is then one instruction
        // farther away.
        let no = self.jump_far(no, REACH - 1);
        let yes = self.jump_far(yes, REACH);
        let (jt, jf) = (self.distance(yes) as u8, self.distance(no) as u8);
        self.push(test.code(), jt, jf, k)
    }

    /// The number of instructions between `label` and the next instruction to emit.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - 1 - label.0
    }

    /// Returns `label`, or emits an unconditional jump to it if it is farther away than `reach`.
    fn jump_far(&mut self, label: Label, reach: usize) -> Label {
        match self.distance(label) {
            near if near <= reach => label,
            // A distance of more than 32 bits may be cut here: the program is then so long that
            // `finish` returns `None`.
            far => self.push(JMP_JA, 0, 0, far as u32),
        }
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(Instruction { code, jt, jf, k });
        Label(self.reversed.len() - 1)
    }
}
