//! An interpreter for the classic BPF that seccomp accepts. It follows the kernel's documentation
//! (Documentation/networking/filter.rst, linux/seccomp.h). It shares no code with the compiler, so
//! it can test the compiler.

use crate::Instruction;

/// A system call as a filter sees it: `struct seccomp_data` of linux/seccomp.h.
#[derive(Clone, Copy, Debug)]
pub struct CallData {
    /// The number of the system call.
    pub number: u32,
    /// The architecture: `AUDIT_ARCH_*` of linux/audit.h.
    pub arch: u32,
    /// The arguments of the system call.
    pub args: [u64; 6],
}

/// The reason why a BPF program is not valid. The value in a variant is the index of an
/// instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// The program is empty or longer than the kernel accepts.
    #[error("the program is empty or too long")]
    Length,
    /// Seccomp does not accept the instruction, or this interpreter does not support it.
    #[error("instruction {0} is unknown")]
    Unknown(usize),
    /// The program continues at an instruction that does not exist.
    #[error("instruction {0} is outside the program")]
    Outside(usize),
    /// The instruction loads an unaligned word, or a word outside `struct seccomp_data`.
    #[error("instruction {0} loads a word that does not exist")]
    Load(usize),
}

impl CallData {
    fn word(&self, offset: u32) -> Option<u32> {
        let arg = |at: u32| self.args[(at as usize - 16) / 8];
        match offset {
            0 => Some(self.number),
            4 => Some(self.arch),
            // Programs of this compiler do not read the two halves of the instruction pointer, so
            // the value 0 is sufficient.
            8 | 12 => Some(0),
            16..64 if offset.is_multiple_of(8) => Some(arg(offset) as u32),
            16..64 if offset.is_multiple_of(4) => Some((arg(offset) >> 32) as u32),
            _ => None,
        }
    }
}

/// Runs the BPF program for a system call and returns its result, `SECCOMP_RET_*` of
/// linux/seccomp.h.
///
/// # Errors
///
/// When the length of the program is wrong, or when the run reaches an instruction that the kernel
/// or this interpreter refuses.
pub fn run(program: &[Instruction], call: &CallData) -> Result<u32, ProgramError> {
    if program.is_empty() || program.len() > 4096 {
        return Err(ProgramError::Length);
    }
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let instruction = program.get(at).ok_or(ProgramError::Outside(at))?;
        let k = instruction.k;
        let holds = match instruction.code {
            0x06 => return Ok(k),
            0x20 => {
                accumulator = call.word(k).ok_or(ProgramError::Load(at))?;
                at += 1;
                continue;
            }
            // Bitwise AND. This compiler does not emit it, but `seccompiler` does.
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
            _ => return Err(ProgramError::Unknown(at)),
        };
        let skip = if holds {
            instruction.jt
        } else {
            instruction.jf
        };
        at += 1 + usize::from(skip);
    }
}
