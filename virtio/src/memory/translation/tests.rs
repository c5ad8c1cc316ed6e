use super::*;
use proptest::prelude::*;

mod ends;

/// A mapping that allows all accesses.
fn mapping(target: u64, size: u64) -> Mapping {
    Mapping {
        size,
        target: Some(GuestAddress(target)),
        access: Permissions::ReadWrite,
    }
}

#[test]
fn neighbours_become_one_mapping_and_parts_of_it_stay() {
    let translation = Translation::default();
    let page = |number: u64| mapping(number << 12, 0x1000);
    for number in 0..0x100 {
        translation.map(number << 12, page(number)).unwrap();
    }
    assert_eq!(translation.len(), 1);
    translation.unmap(0x3000, 0x3fff);
    assert_eq!(translation.len(), 2);
    assert_eq!(translation.map(0x2fff, page(9)), Err(MapError::Overlap));
    assert_eq!(translation.map(0x1f_ffff, page(9)), Ok(()));
    translation.unmap(0, u64::MAX);
    assert!(translation.is_empty());
}

#[test]
fn ranges_that_cannot_be_are_refused() {
    let translation = Translation::default();
    for (start, target, size) in [(0, 0, 0), (u64::MAX, 0, 2), (0, u64::MAX, 2)] {
        let mapped = translation.map(start, mapping(target, size));
        let expected = Err(MapError::BadRange);
        assert_eq!(
            mapped, expected,
            "{size:#x} bytes from {start:#x} to {target:#x}"
        );
    }
}

#[test]
fn all_addresses_can_be_mapped() {
    let nowhere = |size| Mapping {
        target: None,
        ..mapping(0, size)
    };
    for (first, second) in [(1 << 63, 1 << 63), (u64::MAX, 1), (1, u64::MAX)] {
        for (low, high) in [
            (nowhere(first), nowhere(second)),
            (mapping(0, first), mapping(first, second)),
        ] {
            let translation = Translation::default();
            translation.map(0, low).unwrap();
            translation.map(first, high).unwrap();
            assert_eq!(
                translation.map(first, mapping(0, 1)),
                Err(MapError::Overlap)
            );
            translation.unmap(5, u64::MAX - 5);
            assert_eq!(translation.map(5, mapping(0, 1)), Ok(()));
            assert_eq!(translation.map(4, mapping(0, 1)), Err(MapError::Overlap));
            translation.unmap(0, u64::MAX);
            assert!(translation.is_empty());
        }
    }
}

/// A model of a translation for a small address space. It has the target of each single address,
/// and the accesses that the address allows.
type Model = [Option<(Option<u64>, Permissions)>; 16];

#[derive(Clone, Debug)]
enum Change {
    Map {
        start: u64,
        size: u64,
        target: Option<u64>,
        writable: bool,
    },
    Unmap {
        first: u64,
        last: u64,
    },
}

fn change() -> impl Strategy<Value = Change> {
    let target = proptest::option::weighted(0.9, 0..32u64);
    let map = (0..16u64, 0..6u64, target, any::<bool>());
    let map = map.prop_map(|(start, size, target, writable)| Change::Map {
        start,
        size: size.min(16 - start),
        target,
        writable,
    });
    let unmap = (0..16u64, 0..6u64);
    let unmap = unmap.prop_map(|(first, more)| Change::Unmap {
        first,
        last: first + more,
    });
    prop_oneof![3 => map, 2 => unmap]
}

/// Applies a change to the model. Returns false if a translation has to refuse the change.
fn change_model(model: &mut Model, change: &Change) -> bool {
    match *change {
        Change::Map {
            start,
            size,
            target,
            writable,
        } => {
            let range = start as usize..(start + size) as usize;
            if size == 0 || model[range.clone()].iter().any(Option::is_some) {
                return false;
            }
            let access = access(writable);
            for (offset, entry) in (0..).zip(&mut model[range]) {
                *entry = Some((target.map(|target| target + offset), access));
            }
        }
        Change::Unmap { first, last } => {
            let end = (last as usize + 1).min(model.len());
            model[first as usize..end].fill(None);
        }
    }
    true
}

fn access(writable: bool) -> Permissions {
    match writable {
        true => Permissions::ReadWrite,
        false => Permissions::Read,
    }
}

/// Looks up the target of each byte of a range, up to the first byte without a target.
fn found(mappings: &Mappings, start: u64, count: usize) -> Vec<(u64, Permissions)> {
    let pieces = mappings
        .pieces(GuestAddress(start), count)
        .map_while(Result::ok);
    let bytes = |(piece, access): (Piece, Permissions)| {
        (0..piece.len as u64).map(move |offset| (piece.addr.0 + offset, access))
    };
    pieces.flat_map(bytes).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn agrees_with_a_table_of_single_addresses(
        changes in proptest::collection::vec(change(), 1..60),
    ) {
        let translation = Translation::default();
        let mut model = Model::default();
        for change in changes {
            let accepted = change_model(&mut model, &change);
            match change {
                Change::Map { start, size, target, writable } => {
                    let target = target.map(GuestAddress);
                    let mapping = Mapping { size, target, access: access(writable) };
                    prop_assert_eq!(translation.map(start, mapping).is_ok(), accepted);
                }
                Change::Unmap { first, last } => translation.unmap(first, last),
            }
            for (start, count) in (0..16).flat_map(|start| (0..18).map(move |n| (start, n))) {
                let range = model.iter().skip(start).take(count);
                let expected: Vec<_> = range
                    .map_while(|entry| entry.and_then(|(target, access)| Some((target?, access))))
                    .collect();
                let found = translation.with(|mappings| found(mappings, start as u64, count));
                prop_assert_eq!(found, expected, "{} bytes from {}", count, start);
            }
        }
    }
}
