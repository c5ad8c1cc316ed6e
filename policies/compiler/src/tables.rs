//! The numbers of system calls and the values of constants. `tables/README.md` names their source.

use std::sync::LazyLock;

use crate::Arch;

/// Names and their numbers, sorted by name.
type Table = Vec<(&'static str, u64)>;

/// The text of the tables of system calls, in the order of [`Arch::ALL`].
const CALL_TEXTS: [&str; 3] = [
    include_str!("../tables/x86_64.syscalls"),
    include_str!("../tables/aarch64.syscalls"),
    include_str!("../tables/arm.syscalls"),
];
const CONSTANT_TEXTS: [&str; 3] = [
    include_str!("../tables/x86_64.constants"),
    include_str!("../tables/aarch64.constants"),
    include_str!("../tables/arm.constants"),
];

static CALLS: [LazyLock<Table>; 3] = [
    LazyLock::new(|| parse(CALL_TEXTS[0])),
    LazyLock::new(|| parse(CALL_TEXTS[1])),
    LazyLock::new(|| parse(CALL_TEXTS[2])),
];

static CONSTANTS: [LazyLock<Table>; 3] = [
    LazyLock::new(|| parse(CONSTANT_TEXTS[0])),
    LazyLock::new(|| parse(CONSTANT_TEXTS[1])),
    LazyLock::new(|| parse(CONSTANT_TEXTS[2])),
];

fn parse(text: &'static str) -> Table {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &'static str) -> Option<(&'static str, u64)> {
    let (name, value) = line.split_once(' ')?;
    let value = match value.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => value.parse(),
    };
    Some((name, value.ok()?))
}

fn find(table: &Table, name: &str) -> Option<u64> {
    let at = table.binary_search_by_key(&name, |entry| entry.0).ok()?;
    Some(table[at].1)
}

pub(crate) fn calls(arch: Arch) -> &'static [(&'static str, u64)] {
    &CALLS[arch as usize]
}

pub(crate) fn constants(arch: Arch) -> &'static [(&'static str, u64)] {
    &CONSTANTS[arch as usize]
}

/// The number of the system call with this name.
pub fn call_number(arch: Arch, name: &str) -> Option<u32> {
    find(&CALLS[arch as usize], name)?.try_into().ok()
}

/// The name of the system call with this number.
///
/// A signal handler may use this function, because it does not allocate memory and does not take a
/// lock.
pub fn call_name(arch: Arch, number: u32) -> Option<&'static str> {
    let mut calls = CALL_TEXTS[arch as usize].lines().filter_map(parse_line);
    let found = calls.find(|call| call.1 == u64::from(number));
    found.map(|call| call.0)
}

/// The value of a constant, cut to the width of a register of the architecture.
pub fn constant(arch: Arch, name: &str) -> Option<u64> {
    find(&CONSTANTS[arch as usize], name)
}

/// The names of all constants that have the value `value` and begin with `prefix`.
pub fn constants_with_value(arch: Arch, value: u64, prefix: &str) -> Vec<&'static str> {
    let all = constants(arch).iter();
    let same = all.filter(|entry| entry.1 == value && entry.0.starts_with(prefix));
    same.map(|entry| entry.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_complete_and_sorted() {
        for arch in Arch::ALL {
            for (text, table) in [
                (CALL_TEXTS[arch as usize], calls(arch)),
                (CONSTANT_TEXTS[arch as usize], constants(arch)),
            ] {
                assert_eq!(
                    text.lines().count(),
                    table.len(),
                    "{arch}: a line is not an entry"
                );
                assert!(table.is_sorted_by(|a, b| a.0 < b.0), "{arch}");
            }
            let mut numbers: Vec<_> = calls(arch).iter().map(|call| call.1).collect();
            numbers.sort_unstable();
            numbers.dedup();
            // arm_sync_file_range and sync_file_range2 are two names of the same system call.
            let aliases = usize::from(arch == Arch::Arm);
            assert_eq!(
                numbers.len() + aliases,
                calls(arch).len(),
                "{arch}: two calls have the same number"
            );
        }
    }

    #[test]
    fn names_and_numbers_are_those_of_the_kernel() {
        let numbers = |name| Arch::ALL.map(|arch| call_number(arch, name));
        assert_eq!(numbers("read"), [Some(0), Some(63), Some(3)]);
        assert_eq!(numbers("mmap"), [Some(9), Some(222), None]);
        assert_eq!(numbers("mmap2"), [None, None, Some(192)]);
        assert_eq!(numbers("io_uring_enter"), [Some(426); 3]);
        assert_eq!(numbers("ARM_cacheflush"), [None, None, Some(0xf0002)]);
        let values = |name| Arch::ALL.map(|arch| constant(arch, name));
        assert_eq!(
            values("O_DIRECT"),
            [Some(0x4000), Some(0x10000), Some(0x10000)]
        );
        assert_eq!(
            values("AT_FDCWD"),
            [
                Some(-100i64 as u64),
                Some(-100i64 as u64),
                Some(0xffff_ff9c)
            ]
        );
        assert_eq!(values("VFIO_DEVICE_SET_IRQS"), [Some(0x3b6e); 3]);
        assert_eq!(call_name(Arch::Aarch64, 63), Some("read"));
        assert_eq!(
            constants_with_value(Arch::X86_64, 0x5421, "FI"),
            ["FIONBIO"]
        );
    }
}
