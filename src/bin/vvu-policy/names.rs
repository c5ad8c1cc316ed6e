//! Prints rules with the names of constants instead of their numbers.

use policies::compiler::{Action, Arch, Atom, Op, Rule, RuleChain, constants_with_value};

/// The arguments whose values have names. An entry has the name of the system call, the index of
/// the argument, the prefixes of the names, and whether each name stands for a single bit.
const NAMES: [(&str, u8, &[&str], bool); 22] = [
    ("mmap", 2, &["PROT_"], true),
    ("mmap", 3, &["MAP_"], true),
    ("mmap2", 2, &["PROT_"], true),
    ("mmap2", 3, &["MAP_"], true),
    ("mprotect", 2, &["PROT_"], true),
    ("madvise", 2, &["MADV_"], false),
    ("clone", 0, &["CLONE_"], true),
    ("fcntl", 1, &["F_"], false),
    ("fcntl64", 1, &["F_"], false),
    (
        "ioctl",
        1,
        &[
            "VFIO_", "BLK", "FIO", "TC", "TIOC", "TUN", "KVM_", "SIOC", "UFFDIO_", "VHOST_",
        ],
        false,
    ),
    ("prctl", 0, &["PR_SET_", "PR_GET_", "PR_"], false),
    ("socket", 0, &["AF_"], false),
    ("getsockopt", 1, &["SOL_"], false),
    ("getsockopt", 2, &["SO_"], false),
    ("setsockopt", 1, &["SOL_"], false),
    ("setsockopt", 2, &["SO_"], false),
    ("rt_sigaction", 0, &["SIG"], false),
    ("tgkill", 2, &["SIG"], false),
    ("tkill", 1, &["SIG"], false),
    ("fallocate", 1, &["FALLOC_FL_"], true),
    ("statx", 2, &["AT_E"], true),
    ("newfstatat", 3, &["AT_E"], true),
];

/// The indexes of those arguments of a system call that have names for their values. Only
/// conditions on these arguments are proposed.
pub fn named_arguments(call: &str) -> impl Iterator<Item = u8> {
    let of_call = NAMES.iter().filter(move |entry| entry.0 == call);
    of_call.map(|entry| entry.1)
}

/// The text of a rule chain in policy syntax, as it follows the colon of a statement.
pub fn chain(arch: Arch, call: &str, chain: &RuleChain) -> String {
    let rules: Vec<_> = chain
        .rules
        .iter()
        .map(|one| rule(arch, call, one))
        .collect();
    match rules.as_slice() {
        [rule] => rule.clone(),
        rules => format!("{{{}}}", rules.join(", ")),
    }
}

fn rule(arch: Arch, call: &str, rule: &Rule) -> String {
    let atoms: Vec<_> = rule
        .clause
        .atoms()
        .iter()
        .map(|one| atom(arch, call, one))
        .collect();
    let condition = atoms.join(" && ");
    match (rule.clause.is_always(), rule.action) {
        (true, Action::Allow) => "1".to_owned(),
        (true, other) => action(arch, other),
        (false, Action::Allow) => condition,
        (false, other) => format!("{condition}; {}", action(arch, other)),
    }
}

/// The text of an action in policy syntax.
pub fn action(arch: Arch, action: Action) -> String {
    let Action::Errno(number) = action else {
        return action.to_string();
    };
    let named = constants_with_value(arch, number.into(), "E");
    let named = named
        .into_iter()
        .filter(|name| !name.contains('_') && !name.starts_with("EPOLL"));
    match named.min() {
        Some(name) => format!("return {name}"),
        None => action.to_string(),
    }
}

fn atom(arch: Arch, call: &str, atom: &Atom) -> String {
    let value = value(arch, call, atom);
    format!("arg{} {} {value}", atom.arg, atom.op)
}

/// The value of a comparison, written with names of constants if possible, and otherwise as a
/// number.
pub fn value(arch: Arch, call: &str, atom: &Atom) -> String {
    let entry = NAMES
        .iter()
        .find(|entry| (entry.0, entry.1) == (call, atom.arg));
    let by_name = match entry {
        Some((_, _, prefixes, true)) => flags(arch, prefixes[0], atom),
        Some((_, _, prefixes, false)) if atom.op == Op::Equal => {
            let mut found = prefixes
                .iter()
                .map(|prefix| constants_with_value(arch, atom.value, prefix));
            found.find_map(first).map(str::to_owned)
        }
        _ => None,
    };
    by_name.unwrap_or_else(|| match atom.value {
        small @ 0..=255 => small.to_string(),
        large => format!("{large:#x}"),
    })
}

/// The names of the set bits of a value, joined by `|`. If the value has fewer clear bits than set
/// bits, the result is `~` and the names of the clear bits instead. `None` if a bit has no name.
fn flags(arch: Arch, prefix: &str, atom: &Atom) -> Option<String> {
    let all = u64::MAX >> (64 - if arch.is_64_bit() { 64 } else { 32 });
    let missing = all & !atom.value;
    if missing.count_ones() >= atom.value.count_ones() {
        return bits(arch, prefix, atom.value);
    }
    let names = bits(arch, prefix, missing)?;
    Some(match missing.count_ones() {
        1 => format!("~{names}"),
        _ => format!("~({names})"),
    })
}

fn bits(arch: Arch, prefix: &str, value: u64) -> Option<String> {
    let mut names = Vec::new();
    for bit in (0..64).map(|bit| 1u64 << bit) {
        if value & bit != 0 {
            names.push(first(constants_with_value(arch, bit, prefix))?);
        }
    }
    (!names.is_empty()).then(|| names.join("|"))
}

/// The first name in alphabetical order. Several names can have the same number, such as SIGABRT
/// and SIGIOT.
fn first(names: Vec<&'static str>) -> Option<&'static str> {
    names.into_iter().min()
}
