use super::*;

const IDENTITY: Identity = Identity {
    vendor: 0x1af4,
    device: 0x107d,
    revision: 1,
    class: 0x00_ff00,
    subsystem_vendor: 0x1af4,
    subsystem: 0x5655,
};

fn word(space: &ConfigSpace, offset: u64) -> u32 {
    let mut data = [0; 4];
    space.read(offset, &mut data);
    u32::from_le_bytes(data)
}

#[test]
fn the_ids_have_their_places_and_cannot_be_written() {
    let mut space = ConfigSpace::new(&IDENTITY);
    for offset in [0, 8, 0x2c, 0x34, 0x3c] {
        space.write(offset, &[0xff; 4]);
    }
    assert_eq!(word(&space, 0), 0x107d_1af4);
    assert_eq!(word(&space, 8), 0x00ff_0001);
    assert_eq!(word(&space, 0x2c), 0x5655_1af4);
    assert_eq!(word(&space, 0x34), 0);
}

#[test]
fn software_sets_only_the_command_bits_that_have_a_meaning() {
    let mut space = ConfigSpace::new(&IDENTITY);
    space.write(4, &[0xff; 4]);
    assert_eq!(word(&space, 4), 0x0406);
    space.reset();
    assert_eq!(word(&space, 4), 0);
}

#[test]
fn software_can_disable_intx() {
    let mut space = ConfigSpace::new(&IDENTITY);
    space.add_intx();
    space.write(0x3c, &[0xff; 2]);
    assert_eq!(word(&space, 0x3c), 0x01ff);
    assert!(!space.disables_intx());
    space.write(5, &[4]);
    assert!(space.disables_intx());
}

#[test]
fn a_bar_shows_its_size_when_all_bits_are_written() {
    let mut space = ConfigSpace::new(&IDENTITY);
    space.add_bar(0, BarKind::Memory32, 0x8000);
    space.add_bar(2, BarKind::Memory64, 0x4000);
    space.add_bar(4, BarKind::Prefetchable64, 1 << 33);
    for bar in 0..6 {
        space.write(0x10 + 4 * bar, &[0xff; 4]);
    }
    let seen: Vec<_> = (0..6).map(|bar| word(&space, 0x10 + 4 * bar)).collect();
    let expected = [0xffff_8000, 0, 0xffff_c004, 0xffff_ffff, 0xc, 0xffff_fffe];
    assert_eq!(seen, expected);
}

#[test]
fn each_capability_links_to_the_next() {
    let mut space = ConfigSpace::new(&IDENTITY);
    assert_eq!(space.add_capability(&[9, 0xee, 5, 1, 2]), 0x40);
    let location = MsixLocation {
        vectors: 19,
        bar: 0,
        table: 0x6000,
        pending: 0x7000,
    };
    space.add_msix(&location);
    assert_eq!(word(&space, 0x34), 0x40);
    assert_eq!(word(&space, 4) >> 16, 0x10);
    assert_eq!(word(&space, 0x40), 0x0105_4809);
    let msix: Vec<_> = (0..3).map(|at| word(&space, 0x48 + 4 * at)).collect();
    assert_eq!(msix, [0x0012_0011, 0x6000, 0x7000]);
    space.write(0x48, &[0xff; 12]);
    assert_eq!(word(&space, 0x48), 0xc012_0011);
    assert_eq!(word(&space, 0x4c), 0x6000);
}

#[test]
fn only_a_write_of_bit_0_of_the_reset_control_resets_the_function() {
    let mut space = ConfigSpace::new(&IDENTITY);
    assert!(!space.is_reset(0x44, &[1]));
    space.add_function_level_reset();
    assert_eq!(word(&space, 0x40), 0x0306_0013);
    for (offset, data, resets) in [
        (0x44, &[1][..], true),
        (0x40, &[0, 0, 0, 0, 1], true),
        (0x44, &[0xfe], false),
        (0x45, &[1], false),
        (0x40, &[1; 4], false),
        (u64::MAX, &[1; 4], false),
    ] {
        assert_eq!(space.is_reset(offset, data), resets, "{offset:#x}");
    }
}

#[test]
fn writes_outside_are_ignored_and_reads_outside_return_0() {
    let mut space = ConfigSpace::new(&IDENTITY);
    space.write(254, &[1; 8]);
    space.write(u64::MAX - 2, &[1; 8]);
    space.read(u64::MAX - 2, &mut [1; 8]);
    let mut data = [7; 8];
    space.read(252, &mut data);
    assert_eq!(data, [0; 8]);
}
