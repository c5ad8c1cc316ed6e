use super::*;
use virtio::test_utils::anonymous_file;

fn region(guest_addr: u64, size: u64, user_addr: u64) -> MemoryRegion<()> {
    MemoryRegion {
        guest_addr,
        size,
        user_addr,
        file_offset: 0,
        memory: (),
    }
}

fn refusal(regions: &[MemoryRegion<()>]) -> MemoryError {
    MemoryTable::new(regions.to_vec()).unwrap_err()
}

#[test]
fn regions_that_make_no_sense_are_refused() {
    let good = region(0, 0x2000, 0x10_0000);
    for bad in [
        region(0x2000, 0, 0),
        region(u64::MAX, 2, 0),
        region(0x2000, 2, u64::MAX),
    ] {
        assert_eq!(refusal(&[good, bad]), MemoryError::BadRange(1), "{bad:?}");
    }
}

#[test]
fn regions_with_addresses_in_common_are_refused() {
    let first = region(0, 0x2000, 0x10_0000);
    let second = region(0x2000, 0x2000, 0x10_2000);
    assert!(
        MemoryTable::new(vec![first, second]).is_ok(),
        "side by side"
    );
    for bad in [
        region(0x1fff, 0x1000, 0),
        region(0x8000, 0x1000, 0x10_1fff),
        region(0x8000, 0x1000, 0xf_f001),
        first,
    ] {
        let overlap = MemoryError::Overlap(0, 2);
        assert_eq!(refusal(&[first, region(1 << 40, 1, 1 << 40), bad]), overlap);
    }
}

#[test]
fn there_is_a_limit_on_their_number() {
    let many = |count| {
        (0..count)
            .map(|i| region(i << 12, 0x1000, i << 12))
            .collect()
    };
    let full = MemoryTable::new(many(MAX_SLOTS as u64)).unwrap();
    let next = region(1 << 40, 1, 1 << 40);
    assert_eq!(full.with(next), Err(MemoryError::TooMany));
    let room = full.without(&region(0, 0x1000, 0)).unwrap();
    assert!(room.with(next).is_ok());
}

#[test]
fn a_region_goes_only_as_it_came() {
    let table = MemoryTable::new(vec![region(0, 0x1000, 0x5000)]).unwrap();
    for other in [
        region(0x1000, 0x1000, 0x5000),
        region(0, 0x2000, 0x5000),
        region(0, 0x1000, 0x6000),
    ] {
        let error = MemoryError::NoSuchRegion(other.guest_addr);
        assert_eq!(table.without(&other), Err(error));
    }
    let rest = table.without(&region(0, 0x1000, 0x5000)).unwrap();
    assert!(rest.regions().is_empty());
}

/// All regions of at most 3 bytes that begin at one of 4 guest-physical addresses and 4 user
/// addresses. Some of the regions wrap around if a base is near the end of the address space.
fn small_regions(guest: u64, user: u64) -> impl Iterator<Item = MemoryRegion<()>> + Clone {
    let numbers = (0..4).flat_map(|at| (0..4).map(move |size| (at, size)));
    let starts = numbers.flat_map(|(at, size)| (0..4).map(move |user| (at, size, user)));
    starts.map(move |(at, size, at_user)| region(guest + at, size, user + at_user))
}

/// The answer to a list of two regions, from lists of single addresses.
fn answer(regions: [MemoryRegion<()>; 2]) -> Result<(), MemoryError> {
    let addresses = |start: u64, size: u64| u128::from(start)..u128::from(start) + u128::from(size);
    let both = |region: MemoryRegion<()>| {
        [region.guest_addr, region.user_addr].map(|start| addresses(start, region.size))
    };
    let [one, two] = regions.map(both);
    // The end of a region, too, has to fit in 64 bits.
    let bad = [&one, &two].map(|both| both.iter().any(|r| r.is_empty() || r.end >= 1 << 64));
    if let Some(index) = bad.iter().position(|bad| *bad) {
        return Err(MemoryError::BadRange(index));
    }
    let mut pairs = one.into_iter().zip(two);
    match pairs.any(|(one, two)| one.into_iter().any(|address| two.contains(&address))) {
        true => Err(MemoryError::Overlap(0, 1)),
        false => Ok(()),
    }
}

#[test]
fn two_regions_are_a_table_when_and_only_when_they_fit_64_bits_and_share_no_address() {
    let last = u64::MAX - 4;
    for (guest, user) in [(0, 0), (0, last), (last, 0), (last, last)] {
        let all = small_regions(guest, user);
        for one in all.clone() {
            for two in all.clone() {
                let table = MemoryTable::new(vec![one, two]);
                assert_eq!(table.map(|_| ()), answer([one, two]), "{one:?} and {two:?}");
            }
        }
    }
}

#[test]
fn each_user_address_is_translated_by_the_region_that_has_it_or_not_at_all() {
    let file = anonymous_file(0x1000);
    let mapped = Region::map(file, 0, GuestAddress(0), 0x1000, true);
    let mapped = Arc::new(mapped.unwrap());
    let last = u64::MAX - 8;
    for (low, high) in (1..4).flat_map(|low| (1..4).map(move |high| (low, high))) {
        let regions = [region(0, low, 2), region(last, high, last)];
        let expected = |address: u64| {
            let in_low = (2..2 + low).contains(&address).then(|| address - 2);
            in_low.or((last..last + high).contains(&address).then_some(address))
        };
        let regions = regions.map(|region| region.with(mapped.clone()));
        let table = MemoryTable::new(regions.to_vec()).unwrap();
        for address in (0..8).chain(last - 2..=u64::MAX) {
            let found = table.translate(address).map(|found| found.0);
            assert_eq!(
                found,
                expected(address),
                "{address:#x}, {low} and {high} bytes"
            );
        }
    }
}
