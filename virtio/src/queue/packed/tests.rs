use super::*;

mod hand_over;

/// The position after `count` descriptors, counted from the start of the first lap. The wrap
/// counter is set in the first lap.
fn position(count: u32, size: u16) -> Position {
    let (lap, index) = (count / u32::from(size), count % u32::from(size));
    Position {
        index: index as u16,
        wrap: lap.is_multiple_of(2),
    }
}

#[test]
fn positions_of_small_rings_go_on_from_lap_to_lap() {
    for size in 1..=16 {
        for (count, more) in (0..64).flat_map(|count| (0..=size).map(move |more| (count, more))) {
            let expected = position(count + u32::from(more), size);
            let found = position(count, size).after(more, size);
            assert_eq!(found, expected, "{more} after {count} of {size}");
            let back = found.before(more, size);
            assert_eq!(
                back,
                position(count, size),
                "{more} before {found:?} of {size}"
            );
        }
    }
}

#[test]
fn positions_of_the_largest_rings_do_not_overflow() {
    for size in [0x7fff, 0x8000] {
        for (count, more) in [(0, size), (1, size), (u32::from(size) - 1, size), (7, 0)] {
            let expected = position(count + u32::from(more), size);
            let start = position(count, size);
            assert_eq!(start.after(more, size), expected);
            assert_eq!(expected.before(more, size), start);
        }
    }
}

#[test]
fn a_position_is_among_the_last_ones_when_and_only_when_it_is_one_of_them() {
    for size in 1..=8u16 {
        let laps = 2 * u32::from(size);
        for next in laps..2 * laps {
            for count in 0..=u32::from(size) {
                for event in 0..laps {
                    let event = position(event, size);
                    let last = (next - count..next).any(|at| position(at, size) == event);
                    let found = event.is_among_last(count, position(next, size), size);
                    assert_eq!(
                        found, last,
                        "{event:?} in the {count} before {next} of {size}"
                    );
                }
            }
        }
    }
}

#[test]
fn all_positions_survive_encoding() {
    for number in 0..=u16::MAX {
        assert_eq!(Position::decode(number).encode(), number);
    }
}
