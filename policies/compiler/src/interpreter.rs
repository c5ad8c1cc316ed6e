//! An interpreter of classic BPF as seccomp has it, written from the kernel's documentation
//! (Documentation/networking/filter.rst, linux/seccomp.h) and apart from the compiler.

use crate::Instruction;

/// A system call as a filter sees it: `struct seccomp_data`.
#[derive(Clone, Copy, Debug)]
pub struct CallData {
    /// The call's number.
    pub number: u32,
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    /// The arguments.
    pub args: [u64; 6],
}

/// Why a program is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Its length is not what the kernel takes.
    #[error("the program is empty or too long")]
    Length,
    /// An instruction that seccomp has not, or that no compiler here uses.
    #[error("instruction {0} is unknown")]
    Unknown(usize),
    /// A jump or the flow leads out of the program.
    #[error("instruction {0} is outside the program")]
    Outside(usize),
    /// A load that is not aligned or outside the call.
    #[error("instruction {0} loads what is not there")]
    Load(usize),
}

impl CallData {
    fn word(&self, offset: u32) -> Option<u32> {
        let arg = |at: u32| self.args[(at as usize - 16) / 8];
        match offset {
            0 => Some(self.number),
            4 => Some(self.arch),
            // The instruction pointer.
            8 | 12 => Some(0),
            16..64 if offset.is_multiple_of(8) => Some(arg(offset) as u32),
            16..64 if offset.is_multiple_of(4) => Some((arg(offset) >> 32) as u32),
            _ => None,
        }
    }
}

/// What the program returns for a call.
///
/// # Errors
///
/// [`Fault`] where the kernel would have refused it.
pub fn run(program: &[Instruction], call: &CallData) -> Result<u32, Fault> {
    if program.is_empty() || program.len() > 4096 {
        return Err(Fault::Length);
    }
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let instruction = program.get(at).ok_or(Fault::Outside(at))?;
        let k = instruction.k;
        let holds = match instruction.code {
            0x06 => return Ok(k),
            0x20 => {
                accumulator = call.word(k).ok_or(Fault::Load(at))?;
                at += 1;
                continue;
            }
            // Only programs of other compilers have it.
            0x54 => {
                accumulator &= k;
                at += 1;
                continue;
            }
            0x05 => {
                at += 1 + k as usize;
                continue;
            }
            0x15 => accumulator == k,
            0x25 => accumulator > k,
            0x35 => accumulator >= k,
            0x45 => accumulator & k != 0,
            _ => return Err(Fault::Unknown(at)),
        };
        let skip = if holds {
            instruction.jt
        } else {
            instruction.jf
        };
        at += 1 + usize::from(skip);
    }
}
