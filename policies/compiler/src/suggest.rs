//! Suggests existing names for a name that does not exist.

use crate::{Arch, tables};

/// The name in `names` that is most similar to `wrong`. `None` if no name is similar enough.
pub(crate) fn similar<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Long names are not compared, because the run time of `distance` is quadratic. A name with
    // more than 64 bytes is not a typing error.
    if wrong.len() > 64 {
        return None;
    }
    let limit = 1 + wrong.len() / 4;
    let distances = names.map(|name| (distance(wrong, name), name));
    let (distance, name) = distances.min()?;
    (distance <= limit).then_some(name)
}

/// Advice about an unknown system call.
pub(crate) fn call(arch: Arch, wrong: &str) -> String {
    let others = Arch::ALL.into_iter();
    let others = others.filter(|other| tables::call_number(*other, wrong).is_some());
    let others: Vec<_> = others.map(Arch::name).collect();
    if !others.is_empty() {
        return format!("it exists only on {}", others.join(" and "));
    }
    match similar(wrong, tables::calls(arch).iter().map(|entry| entry.0)) {
        Some(name) => format!("did you mean '{name}'?"),
        None => format!("expected the name of a system call of {arch}"),
    }
}

/// Advice about an unknown constant.
pub(crate) fn constant(arch: Arch, wrong: &str) -> String {
    match similar(wrong, tables::constants(arch).iter().map(|entry| entry.0)) {
        Some(name) => format!("did you mean '{name}'?"),
        None => format!("expected a number or a constant of {arch}'s headers; write its value"),
    }
}

/// The minimum number of bytes to insert, delete or replace to turn `from` into `to`.
fn distance(from: &str, to: &str) -> usize {
    let to = to.as_bytes();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_inserted_deleted_and_replaced_letters() {
        assert_eq!(distance("opnat", "openat"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn advice_names_a_similar_name_or_the_architectures_that_have_this_one() {
        assert_eq!(call(Arch::X86_64, "opnat"), "did you mean 'openat'?");
        assert_eq!(call(Arch::X86_64, "mmap2"), "it exists only on arm");
        assert!(call(Arch::X86_64, "zzzzzzzzzz").starts_with("expected"));
        assert_eq!(constant(Arch::Arm, "PROT_EXE"), "did you mean 'PROT_EXEC'?");
    }
}
