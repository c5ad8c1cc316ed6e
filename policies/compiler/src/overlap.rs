//! Checks whether two conditions can hold at the same time.

use crate::rule::{Atom, Clause, Op};

/// Whether both clauses may hold for the same arguments. `false` means that they never hold
/// together. `true` does not prove that they can hold together, because bits and ranges are checked
/// separately.
pub fn may_overlap(a: &Clause, b: &Clause) -> bool {
    (0..6).all(|arg| {
        let both = a.atoms().iter().chain(b.atoms());
        let atoms: Vec<&Atom> = both.filter(|atom| atom.arg == arg).collect();
        may_hold(&atoms)
    })
}

/// Whether one number may satisfy all comparisons in `atoms`.
fn may_hold(atoms: &[&Atom]) -> bool {
    let all_hold = |number: u64| atoms.iter().all(|atom| atom.op.holds(number, atom.value));
    if let Some(equal) = atoms.iter().find(|atom| atom.op == Op::Equal) {
        return all_hold(equal.value);
    }
    let Some((low, high)) = range(atoms) else {
        return false;
    };
    if low == high {
        return all_hold(low);
    }
    // A number without set bits outside `bits` is at most `bits`, so `bits` is an upper limit, too.
    let bits = only_bits(atoms);
    let wants_others = |atom: &&Atom| atom.op == Op::AnyBit && atom.value & bits == 0;
    low <= bits && !atoms.iter().any(wants_others)
}

/// The range of numbers that fulfil all `<`, `<=`, `>` and `>=` comparisons. `None` if the range is
/// empty.
fn range(atoms: &[&Atom]) -> Option<(u64, u64)> {
    let (mut low, mut high) = (0, u64::MAX);
    for atom in atoms {
        match atom.op {
            Op::Less => high = high.min(atom.value.checked_sub(1)?),
            Op::LessOrEqual => high = high.min(atom.value),
            Op::Greater => low = low.max(atom.value.checked_add(1)?),
            Op::GreaterOrEqual => low = low.max(atom.value),
            _ => {}
        }
    }
    (low <= high).then_some((low, high))
}

/// The bits that all `in` comparisons allow to be set.
fn only_bits(atoms: &[&Atom]) -> u64 {
    let masks = atoms.iter().filter(|atom| atom.op == Op::OnlyBits);
    masks.fold(u64::MAX, |bits, atom| bits & atom.value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn clause(atoms: &[(u8, Op, u64)]) -> Clause {
        let atoms = atoms
            .iter()
            .map(|&(arg, op, value)| Atom { arg, op, value });
        Clause::new(atoms.collect())
    }

    #[test]
    fn clauses_that_contradict_each_other_do_not_overlap() {
        for (a, b) in [
            ((0, Op::Equal, 1), (0, Op::Equal, 2)),
            ((0, Op::Equal, 4), (0, Op::OnlyBits, 3)),
            ((0, Op::Equal, 4), (0, Op::NotEqual, 4)),
            ((0, Op::Less, 4), (0, Op::GreaterOrEqual, 4)),
            ((0, Op::Less, 0), (1, Op::Equal, 1)),
            ((0, Op::AnyBit, 4), (0, Op::OnlyBits, !4)),
            ((0, Op::Greater, 7), (0, Op::OnlyBits, 7)),
        ] {
            assert!(!may_overlap(&clause(&[a]), &clause(&[b])), "{a:?} {b:?}");
        }
        let always = Clause::default();
        assert!(may_overlap(&always, &clause(&[(0, Op::Equal, 1)])));
        assert!(may_overlap(
            &clause(&[(0, Op::Equal, 1)]),
            &clause(&[(1, Op::Equal, 2)])
        ));
    }

    proptest! {
        /// If both clauses hold for some arguments, `may_overlap` must return true. Otherwise a
        /// conflict would not be found.
        #[test]
        fn clauses_that_hold_for_the_same_arguments_overlap(
            ops in prop::collection::vec((0..2u8, 0..8usize, 0..8u64), 0..6),
            split in 0..6usize,
            args in prop::array::uniform6(0..9u64),
        ) {
            let atoms = ops.iter().map(|&(arg, op, value)| (arg, Op::ALL[op], value));
            let atoms: Vec<_> = atoms.collect();
            let split = split.min(atoms.len());
            let (a, b) = (clause(&atoms[..split]), clause(&atoms[split..]));
            if a.holds(&args) && b.holds(&args) {
                prop_assert!(may_overlap(&a, &b));
            }
        }
    }
}
