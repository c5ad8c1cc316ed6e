use super::*;
use crate::pci::mock::{MockFunction, Profile};
use std::os::unix::fs::FileExt;
use virtio::GuestMemory;
use vm_memory::Bytes;

/// A memory table of one file. 2 GiB of the memory are below the guest address 4 GiB, and 1 GiB is
/// above.
fn table() -> MemoryTable<Absent> {
    let low = region(0, 0x8000_0000, 0x7f00_0000_0000, 0);
    let high = region(0x1_0000_0000, 0x4000_0000, 0x7f00_8000_0000, 0x8000_0000);
    MemoryTable::new(vec![low, high]).unwrap()
}

fn region(guest_addr: u64, size: u64, user_addr: u64, file_offset: u64) -> MemoryRegion<Absent> {
    MemoryRegion {
        guest_addr,
        size,
        user_addr,
        file_offset,
        memory: Absent,
    }
}

fn single(guest_addr: u64, size: u64, file_offset: u64) -> MemoryTable<Absent> {
    MemoryTable::new(vec![region(guest_addr, size, 0, file_offset)]).unwrap()
}

fn window(profile: Profile, base: u32, rule: LayoutRule) -> Window {
    let capability = Capability {
        bar: profile.window_bar,
        offset: base,
        ..Capability::default()
    };
    Window::new(MockFunction::new(profile), &capability, rule).unwrap()
}

fn assert_places(window: &mut Window, expected: [u64; 2]) {
    assert_eq!(window.place(&table()).unwrap(), expected);
}

#[test]
fn each_rule_places_a_table_where_its_device_does() {
    let qemu = |base| window(Profile::qemu(), base, LayoutRule::WithOffsets);
    assert_places(&mut qemu(0x3000), [0x3000, 0x1_0000_3000]);
    assert_places(&mut qemu(0x1000), [0x1000, 0x1_0000_1000]);
    let mut packed = window(Profile::ours(), 0, LayoutRule::Packed);
    assert_places(&mut packed, [0, 0x8000_0000]);
    assert_places(&mut packed, [0, 0x8000_0000]);
    let mut growing = window(Profile::crosvm(), 0, LayoutRule::Growing);
    assert_places(&mut growing, [0, 0x8000_0000]);
    assert_places(&mut growing, [0xc000_0000, 0x1_4000_0000]);
    assert!(growing.place(&table()).is_err(), "8 GiB are used up");
    growing.rewind();
    assert_places(&mut growing, [0, 0x8000_0000]);
}

#[test]
fn addresses_translate_to_bytes_of_the_bar() {
    for (profile, base, rule, expected) in [
        (
            Profile::qemu(),
            0x3000,
            LayoutRule::WithOffsets,
            [0x100_3000, 0x1_0000_4000],
        ),
        (
            Profile::ours(),
            0,
            LayoutRule::Packed,
            [0x100_0000, 0x8000_1000],
        ),
    ] {
        let capability = Capability {
            bar: profile.window_bar,
            offset: base,
            ..Capability::default()
        };
        let function = MockFunction::new(profile);
        let mut window = Window::new(function.clone(), &capability, rule).unwrap();
        let mapped = window.map(table()).unwrap().into_regions();
        assert_eq!(mapped[1].user_addr, 0x7f00_8000_0000);
        assert!(!mapped[0].memory.direct_io());
        let regions = mapped.into_iter().map(|mapped| mapped.memory).collect();
        let memory = GuestMemory::from_arc_regions(regions).unwrap();
        for (guest, place) in [0x100_0000, 0x1_0000_1000].into_iter().zip(expected) {
            memory.write_obj(place, GuestAddress(guest)).unwrap();
            let mut bytes = [0; 8];
            function.window().read_exact_at(&mut bytes, place).unwrap();
            assert_eq!(u64::from_le_bytes(bytes), place);
        }
    }
}

#[test]
fn a_table_that_does_not_fit_is_refused() {
    let mut window = window(Profile::ours(), 0x1000, LayoutRule::Packed);
    let bar = 1 << 33;
    assert!(window.place(&single(0, bar - 0x1000, 0)).is_ok());
    for size in [bar - 0xfff, u64::MAX] {
        let error = window.place(&single(0, size, 0)).unwrap_err();
        assert!(matches!(error, WindowError::TooLarge { index: 0, .. }));
    }
    window.rule = LayoutRule::WithOffsets;
    let error = window.place(&single(0, 0x1000, u64::MAX)).unwrap_err();
    assert!(matches!(error, WindowError::TooLarge { .. }), "{error}");
}

#[test]
fn a_window_outside_its_bar_is_refused() {
    for (bar, offset) in [(4, u32::MAX), (5, 0), (0, 0x8000)] {
        let capability = Capability {
            bar,
            offset,
            ..Capability::default()
        };
        let profile = Profile {
            bars: [0x8000, 0, 0x4000, 0, 1 << 31, 0],
            ..Profile::ours()
        };
        let function = MockFunction::new(profile);
        let refused = Window::new(function, &capability, LayoutRule::Packed);
        assert!(matches!(refused, Err(DriverError::BadWindow { .. })));
    }
}

#[test]
fn the_error_for_a_bar_that_cannot_be_mapped_names_region_and_bar() {
    let capability = Capability::default();
    let function = MockFunction::new(Profile::ours());
    let mut window = Window::new(function, &capability, LayoutRule::Packed).unwrap();
    let error = window.map(single(0, 0x1000, 0)).unwrap_err();
    assert!(matches!(
        error,
        WindowError::NotMappable { index: 0, bar: 0 }
    ));
}
