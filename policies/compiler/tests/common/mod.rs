//! Helpers for tests that keep their policies in memory.
#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(clippy::unwrap_used, reason = "only tests use it")]

use std::path::Path;

use policy_compiler::interpreter::{CallData, run};
use policy_compiler::{
    Action, Arch, Diagnostic, Instruction, Memory, Options, Policy, call_number, load,
};

/// Makes a source of policy files from their paths and contents.
pub fn tree(files: &[(&str, &str)]) -> Memory {
    let mut memory = Memory::new();
    for (path, text) in files {
        memory.add(path, *text);
    }
    memory
}

/// Loads the first of these files and merges it for an architecture. The first file may include the
/// others.
pub fn merge(arch: Arch, files: &[(&str, &str)]) -> Result<Policy, Diagnostic> {
    let loaded = load(&tree(files), Path::new(files[0].0), &Options::default())?;
    Policy::merge(&loaded, arch)
}

/// Loads one file and merges it for x86_64.
pub fn policy(text: &str) -> Result<Policy, Diagnostic> {
    merge(Arch::X86_64, &[("a.policy", text)])
}

/// The error message for one file on x86_64.
pub fn error(text: &str) -> String {
    policy(text).unwrap_err().to_string()
}

/// The value that a BPF program returns for a system call. Missing arguments are 0.
pub fn returned(program: &[Instruction], arch: Arch, name: &str, args: &[u64]) -> u32 {
    let number = call_number(arch, name).unwrap();
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    let call = CallData {
        number,
        arch: arch.audit(),
        args: all,
    };
    run(program, &call).unwrap()
}

pub const ALLOW: u32 = 0x7fff_0000;
pub const KILL: u32 = 0x8000_0000;

/// The value that a BPF program returns to make a system call fail with this error number.
pub fn errno(number: u16) -> u32 {
    Action::Errno(number).code()
}
