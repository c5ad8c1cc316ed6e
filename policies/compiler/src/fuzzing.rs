//! Properties of the compiler that hold for every input. The fuzz target and the test of its corpus
//! check these properties.

use std::path::Path;

use crate::interpreter::{CallData, run};
use crate::{Action, Arch, MAX_INSTRUCTIONS, Memory, Options, Policy, compile, decide, load};

/// The names of the policy files in an input of the fuzzer. The first file is the policy to load.
const FILES: [&str; 3] = ["a", "b", "c"];
/// The text between two files in an input of the fuzzer.
const SEPARATOR: &[u8] = b"\n===\n";

/// Loads, merges and compiles the policy in an input of the fuzzer, and checks the result.
///
/// # Panics
///
/// When one of the properties does not hold.
pub fn check(input: &[u8]) {
    let memory = split(input);
    for denylist in [false, true] {
        let options = Options {
            denylist,
            ..Options::default()
        };
        match load(&memory, Path::new(FILES[0]), &options) {
            Ok(loaded) => Arch::ALL.map(|arch| check_arch(&loaded, arch, denylist)),
            Err(error) => return assert!(!error.to_string().is_empty()),
        };
    }
}

fn split(input: &[u8]) -> Memory {
    let mut memory = Memory::new();
    let mut rest = input;
    for name in FILES {
        let at = rest.windows(SEPARATOR.len()).position(|w| w == SEPARATOR);
        let (file, next) = match at {
            Some(at) => (&rest[..at + 1], &rest[at + SEPARATOR.len()..]),
            None => (rest, &rest[..0]),
        };
        memory.add(name, file);
        rest = next;
    }
    memory
}

fn check_arch(loaded: &crate::Loaded, arch: Arch, denylist: bool) {
    let merged = Policy::merge(loaded, arch);
    let compiled = merged.and_then(|policy| Ok((compile(&policy)?, policy)));
    let (program, policy) = match compiled {
        Ok(compiled) => compiled,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(program.len() <= MAX_INSTRUCTIONS);
    assert!(denylist || !policy.default.permits());
    let returned = |number, arch: Arch, args| {
        let call = CallData {
            number,
            arch: arch.audit(),
            args,
        };
        run(&program, &call).expect("the program should be valid")
    };
    for (number, call) in &policy.calls {
        let values = call.chains.iter().flat_map(|chain| &chain.rules);
        let values = values.flat_map(|rule| rule.clause.atoms());
        let values: Vec<u64> = values.map(|atom| atom.value).take(16).collect();
        for value in values.into_iter().chain([0]) {
            for value in [value, value.wrapping_add(1), value ^ (1 << 31)] {
                let args = [arch.register(value); 6];
                let expected = decide(&policy, *number, &args).action.code();
                assert_eq!(returned(*number, arch, args), expected, "{}", call.name);
            }
        }
    }
    let unlisted = (0..600).filter(|number| !policy.calls.contains_key(number));
    for number in unlisted.step_by(50) {
        assert_eq!(returned(number, arch, [0; 6]), policy.default.code());
    }
    let foreign = if arch == Arch::Arm {
        Arch::X86_64
    } else {
        Arch::Arm
    };
    assert_eq!(returned(0, foreign, [0; 6]), Action::KillProcess.code());
}
