//! Tests of memory in huge pages. The kernel maps and unmaps a huge page only as a whole.

use super::*;
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, fstat, ftruncate, memfd_create};
use std::fs::File;
use std::io::Write;

const HUGE: u64 = 2 << 20;

/// A memfd of `len` bytes in huge pages of 2 MiB. `None` if the kernel does not support huge pages.
fn huge_file(len: u64) -> Option<Arc<File>> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    let file = memfd_create("huge", flags).ok()?;
    ftruncate(&file, len).ok()?;
    Some(Arc::new(File::from(file)))
}

/// Prints the reason for which a test, or a part of a test, did not run. Writes directly to the
/// output, because the test harness hides messages that a successful test prints.
fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// The number of mappings of a file in this process.
fn mappings_of(file: &File) -> usize {
    let inode = fstat(file).unwrap().st_ino.to_string();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let is_inode = |line: &&str| line.split_whitespace().nth(4) == Some(&inode);
    maps.lines().filter(is_inode).count()
}

#[test]
fn parts_of_huge_pages_are_mapped_and_nothing_stays_afterwards() {
    let Some(file) = huge_file(2 * HUGE) else {
        return skip("the kernel has no huge pages");
    };
    for (offset, size) in [
        (0, 0xa_0000),
        (0xc_0000, 0x10_0000),
        (HUGE - 0x1000, 0x2000),
        (HUGE, HUGE),
    ] {
        let region = Region::map(file.clone(), offset, GuestAddress(0x1000), size, true);
        let region = region.unwrap_or_else(|error| panic!("{size:#x} at {offset:#x}: {error:?}"));
        assert_eq!(mappings_of(&file), 1);
        drop(region);
        assert_eq!(mappings_of(&file), 0, "{size:#x} bytes at {offset:#x}");
    }
    let beyond = Region::map(file, HUGE, GuestAddress(0), HUGE + 1, true);
    assert!(matches!(beyond, Err(RegionError::FileTooShort { .. })));
}

#[test]
fn bytes_of_huge_pages_are_where_the_offset_says() {
    let Some(file) = huge_file(2 * HUGE) else {
        return skip("the kernel has no huge pages");
    };
    if fallocate(&*file, FallocateFlags::empty(), 0, 2 * HUGE).is_err() {
        return skip("fewer than 2 huge pages are free (sysctl vm.nr_hugepages)");
    }
    let map = |offset, size| {
        let region = Region::map(file.clone(), offset, GuestAddress(0), size, true).unwrap();
        GuestMemory::from_regions(vec![region]).unwrap()
    };
    let (whole, part) = (map(0, 2 * HUGE), map(0xc_0000, 0x18_0000));
    for at in [0, 0x13_ffff, 0x14_0000, 0x17_ffff] {
        part.write_obj(at as u32 as u8 | 1, GuestAddress(at))
            .unwrap();
        let found = whole.read_obj::<u8>(GuestAddress(0xc_0000 + at)).unwrap();
        assert_eq!(found, at as u8 | 1, "{at:#x}");
    }
    assert!(part.write_obj(1u8, GuestAddress(0x18_0000)).is_err());
}
