//! Compares the table of system call numbers of x86_64 with the numbers in the `libc` crate.
#![cfg(target_arch = "x86_64")]

use policy_compiler::{Arch, call_number};

macro_rules! check {
    ($($name:ident $constant:ident)*) => {
        const NUMBERS: &[(&str, i64)] = &[$((stringify!($name), libc::$constant)),*];
    };
}

include!("libc_numbers.in");

#[test]
fn the_numbers_of_x86_64_are_those_of_libc() {
    assert!(NUMBERS.len() > 340);
    for (name, number) in NUMBERS {
        let ours = call_number(Arch::X86_64, name).map(i64::from);
        assert_eq!(ours, Some(*number), "{name}");
    }
}
