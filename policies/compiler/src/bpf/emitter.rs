//! Puts a program together from its end.

use std::collections::HashMap;

use super::{Instruction, MAX_INSTRUCTIONS};

// Codes of linux/bpf_common.h.
const LD_W_ABS: u16 = 0x20;
const JMP_JA: u16 = 0x05;
const RET_K: u16 = 0x06;

/// How far a conditional jump reaches.
const REACH: usize = u8::MAX as usize;

/// An instruction, counted from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Label(usize);

/// What a conditional jump looks at: the loaded word and a number.
#[derive(Clone, Copy, Debug)]
pub(super) enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
    AnyBit,
}

impl Test {
    /// `BPF_JMP | BPF_K` and the condition.
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
    /// The last instruction first.
    reversed: Vec<Instruction>,
    /// Where each action is returned.
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

    /// The last instruction.
    pub fn default(&self) -> Label {
        Label(0)
    }

    /// The program; none when it is too long.
    pub fn finish(mut self) -> Option<Vec<Instruction>> {
        self.reversed.reverse();
        (self.reversed.len() <= MAX_INSTRUCTIONS).then_some(self.reversed)
    }

    /// Returns an action; one that is near is used again.
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

    /// Loads the word at `offset` and goes on to `next`.
    pub fn load(&mut self, offset: u32, next: Label) -> Label {
        self.jump_far(next, 0);
        self.push(LD_W_ABS, 0, 0, offset)
    }

    /// Goes on to `yes` or `no`.
    pub fn test(&mut self, test: Test, k: u32, yes: Label, no: Label) -> Label {
        // The second stepping stone moves the first target one further away.
        let no = self.jump_far(no, REACH - 1);
        let yes = self.jump_far(yes, REACH);
        let (jt, jf) = (self.distance(yes) as u8, self.distance(no) as u8);
        self.push(test.code(), jt, jf, k)
    }

    /// How many instructions the next one has to skip to get there.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - 1 - label.0
    }

    /// A stepping stone when it is farther away than `reach`.
    fn jump_far(&mut self, label: Label, reach: usize) -> Label {
        match self.distance(label) {
            near if near <= reach => label,
            // Programs that are too long for 32 bits are too long for the kernel long before.
            far => self.push(JMP_JA, 0, 0, far as u32),
        }
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(Instruction { code, jt, jf, k });
        Label(self.reversed.len() - 1)
    }
}
