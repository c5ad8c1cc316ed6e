use super::*;
use virtio::test_utils::anonymous_file;

const MIB: u64 = 1 << 20;

fn window(size: u64) -> Window {
    let file = anonymous_file(size).try_clone().unwrap();
    Window::new(file, Path::new("/dev/shm/sibling"), MemoryFiles::default()).unwrap()
}

fn region(guest_addr: u64, size: u64, file_offset: u64) -> MemoryRegion<()> {
    MemoryRegion {
        guest_addr,
        size,
        user_addr: 0x7f00_0000_0000 + guest_addr,
        file_offset,
        memory: (),
    }
}

/// The memory table that the driver gets for these regions of the window's file. Each entry is
/// (guest address, size, offset) of a region.
fn translate(window: &Window, regions: &[MemoryRegion<()>]) -> Result<Vec<[u64; 3]>, Refusal> {
    let with_file =
        |region: &MemoryRegion<()>| region.with(OwnedFd::from(window.file.try_clone().unwrap()));
    let table = MemoryTable::new(regions.iter().map(with_file).collect())?;
    let translated = window.translate(table)?.into_regions();
    let fields = translated
        .iter()
        .map(|region| [region.guest_addr, region.size, region.file_offset]);
    Ok(fields.collect())
}

#[test]
fn the_bar_is_a_power_of_two_and_the_file_may_be_smaller() {
    let info = window(3 * MIB).region();
    assert_eq!((info.size, info.areas[0].size), (4 * MIB, 3 * MIB));
    let info = window(4 * MIB).region();
    assert_eq!((info.size, info.areas[0].size), (4 * MIB, 4 * MIB));
}

#[test]
fn regions_are_sorted_and_told_by_their_gaps() {
    let window = window(8 * MIB);
    let contiguous = [region(0, 2 * MIB, 0), region(1 << 32, 6 * MIB, 2 * MIB)];
    let seen = translate(&window, &contiguous).unwrap();
    assert_eq!(seen, [[0, 2 * MIB, 0], [1 << 32, 6 * MIB, 0]]);

    let holes = [
        region(1 << 32, MIB, 6 * MIB),
        region(0, MIB, MIB),
        region(4 * MIB, 2 * MIB, 3 * MIB),
    ];
    let seen = translate(&window, &holes).unwrap();
    let expected = [[0, MIB, MIB], [4 * MIB, 2 * MIB, MIB], [1 << 32, MIB, MIB]];
    assert_eq!(seen, expected);
    // To find a region's data in the BAR, the driver adds the lengths and offsets of all earlier
    // regions and the region's own offset.
    let mut before = 0;
    for ([_, size, offset], start) in seen.into_iter().zip([MIB, 3 * MIB, 6 * MIB]) {
        assert_eq!(before + offset, start);
        before += offset + size;
    }
}

#[test]
fn impossible_regions_are_refused() {
    let window = window(8 * MIB);
    let cases = [
        (
            "extends past the end of the file",
            vec![region(0, 8 * MIB + 1, 0)],
        ),
        (
            "extends past the end of the file",
            vec![region(0, MIB, u64::MAX)],
        ),
        (
            "overlaps",
            vec![region(0, 2 * MIB, 0), region(1 << 32, MIB, MIB)],
        ),
        ("overlaps", vec![region(0, MIB, 0), region(1 << 32, MIB, 0)]),
        ("is empty", vec![region(0, 0, 0)]),
    ];
    for (what, regions) in cases {
        let refusal = translate(&window, &regions).unwrap_err().to_string();
        assert!(refusal.contains(what), "{refusal}");
    }
}

#[test]
fn another_file_is_refused_with_the_way_out() {
    let window = window(8 * MIB);
    let other = OwnedFd::from(anonymous_file(8 * MIB).try_clone().unwrap());
    let table = MemoryTable::new(vec![region(0, MIB, 0).with(other)]).unwrap();
    let window = window.advising("give it this one");
    let refusal = window.translate(table).unwrap_err().to_string();
    let expected = "its memory is not the file /dev/shm/sibling; give it this one";
    assert_eq!(refusal, expected);
}

#[test]
fn a_file_on_a_file_system_that_may_not_answer_is_refused_before_it_is_looked_at() {
    let window = window(8 * MIB);
    let other = OwnedFd::from(File::open("/proc/self/exe").unwrap());
    let table = MemoryTable::new(vec![region(0, MIB, 0).with(other)]).unwrap();
    let refusal = window.translate(table).unwrap_err();
    assert!(matches!(refusal, Refusal::MemoryFile(_)), "{refusal}");
}

#[test]
fn memory_can_be_accessed_without_a_mapping() {
    let window = window(0x3000);
    window.write(0x2ffe, &[1, 2, 3, 4]);
    let mut data = [9; 4];
    window.read(0x2ffe, &mut data);
    assert_eq!(data, [1, 2, 0, 0]);
    window.write(u64::MAX, &[1]);
    window.read(u64::MAX, &mut data);
    assert_eq!(window.file.metadata().unwrap().len(), 0x3000);
}

#[test]
fn a_file_that_cannot_be_memory_is_refused() {
    let file = anonymous_file(0x1001).try_clone().unwrap();
    let error = Window::new(file, Path::new("m"), MemoryFiles::default()).unwrap_err();
    assert!(matches!(error, WindowError::Size { .. }), "{error}");
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap();
    let error = Window::new(null, Path::new("m"), MemoryFiles::default()).unwrap_err();
    assert!(matches!(error, WindowError::NotAFile(_)), "{error}");
}
