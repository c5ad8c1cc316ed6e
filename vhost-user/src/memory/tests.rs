use super::*;

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
