//! Tries all pairs of mappings, and all ranges to unmap, among the first and among the last
//! addresses of the 64-bit address space.

use super::*;

/// The number of addresses at which mappings begin.
const COUNT: u64 = 4;

/// The first of [`COUNT`] addresses at each end of the address space.
const BASES: [u64; 2] = [0, u64::MAX - (COUNT - 1)];

/// The targets of single addresses. The index is the address's offset from a base. There are more
/// than [`COUNT`] addresses, because the last mappings go on after these.
type Targets = [Option<u64>; 2 * COUNT as usize];

/// All mappings of at most 3 bytes: the offset of the mapping from a base, its target and its size.
/// Some of these mappings wrap around.
fn mappings() -> impl Iterator<Item = (u64, u64, u64)> + Clone {
    let targets = [8, 9, u64::MAX - 1];
    let ranges = (0..COUNT).flat_map(|at| (0..COUNT).map(move |size| (at, size)));
    ranges.flat_map(move |(at, size)| targets.map(|target| (at, target, size)))
}

/// The answer to the request for a mapping. Adds the mapping to `targets` if it is accepted.
fn map_naively(
    targets: &mut Targets,
    base: u64,
    (at, target, size): (u64, u64, u64),
) -> Result<(), MapError> {
    let fits = |start: u64| u128::from(start) + u128::from(size) <= 1 << 64;
    if size == 0 || !fits(base + at) || !fits(target) {
        return Err(MapError::BadRange);
    }
    let entries = targets.iter_mut().skip(at as usize).take(size as usize);
    let mut entries: Vec<_> = entries.collect();
    if entries.iter().any(|entry| entry.is_some()) {
        return Err(MapError::Overlap);
    }
    for (offset, entry) in (0..).zip(&mut entries) {
        **entry = Some(target + offset);
    }
    Ok(())
}

fn check_lookups(translation: &Translation, targets: &Targets, base: u64) {
    for (at, count) in (0..COUNT as usize).flat_map(|at| (1..=5).map(move |count| (at, count))) {
        let expected = targets[at..].iter().take(count).map_while(|target| *target);
        let expected: Vec<_> = expected.collect();
        let found = translation.with(|mappings| found(mappings, base + at as u64, count));
        let found: Vec<_> = found.into_iter().map(|(target, _)| target).collect();
        assert_eq!(
            found, expected,
            "{count} bytes from {at} of {translation:?}"
        );
    }
}

fn check_all_unmaps(base: u64, pair: [(u64, u64, u64); 2]) {
    for (first, last) in (0..COUNT).flat_map(|last| (0..=last).map(move |first| (first, last))) {
        let (translation, mut targets) = (Translation::default(), Targets::default());
        for (at, target, size) in pair {
            let mapped = translation.map(base + at, mapping(target, size));
            let expected = map_naively(&mut targets, base, (at, target, size));
            assert_eq!(mapped, expected, "{pair:?} from {base:#x}");
        }
        translation.unmap(base + first, base + last);
        targets[first as usize..=last as usize].fill(None);
        check_lookups(&translation, &targets, base);
    }
}

#[test]
fn mappings_at_both_ends_of_the_address_space_agree_with_a_list_of_single_addresses() {
    for base in BASES {
        for (one, two) in mappings().flat_map(|one| mappings().map(move |two| (one, two))) {
            check_all_unmaps(base, [one, two]);
        }
    }
}
