//! qcow2 images whose files hold arbitrary bytes.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use imago::FormatCreateBuilder;
use virtio::test_utils::anonymous_file;

use super::path_of;
use crate::image::Qcow2;
use crate::operation::{Operation, Range, SECTOR_SIZE};
use crate::{Format, OpenOptions};

const SIZE: u64 = 1 << 20;
const CLUSTER: usize = 4096;

/// Maximum length of a changed or moved range.
const MAX_LEN: u64 = 32 * SECTOR_SIZE;

/// An image with some data, and its file. All checks of a thread share the file.
struct Bench {
    file: Arc<File>,
    /// The bytes of the image.
    image: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let file = anonymous_file(0);
        let copy = file.try_clone().expect("a descriptor");
        let builder = imago::qcow2::Qcow2::<imago::file::File>::create_builder(
            copy.try_into().expect("a file"),
        );
        let created = builder.size(SIZE).cluster_size(CLUSTER).create();
        created.expect("room for an image");
        let disk = Qcow2::open(&path_of(&file), &options(false)).expect("a new image");
        let range = Range {
            offset: 512,
            len: 3 * CLUSTER as u64,
        };
        let mut data = vec![1; range.len as usize];
        let written = disk.carry_out(Operation::WriteStable, range, &mut data);
        written.expect("room for data");
        drop(disk);
        let len = file.metadata().expect("an open file").len();
        let mut image = vec![0; len as usize];
        file.read_exact_at(&mut image, 0).expect("an open file");
        Self { file, image }
    }

    fn reset(&self) {
        self.file.set_len(0).expect("an open file");
        self.write(0, &self.image);
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, offset).expect("memory");
    }
}

fn options(read_only: bool) -> OpenOptions {
    OpenOptions {
        format: Format::Qcow2,
        read_only,
        lock: false,
        ..OpenOptions::default()
    }
}

/// Changes an image, and uses it. The first byte of `input` is 1 if the image is read-only. The
/// rest consists of parts. A part begins with two bytes: its kind, and the number of bytes that
/// follow. A part of kind 0 is an offset of 3 bytes and the new bytes of the file there. Other
/// parts are operations, with an offset of 2 bytes and a length of 1 byte in sectors.
///
/// # Panics
///
/// When an operation panics, or the image cannot be written to memory.
pub fn check(input: &[u8]) {
    thread_local!(static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) });
    let Some((first, parts)) = input.split_first() else {
        return;
    };
    BENCH.with_borrow_mut(|bench| {
        use_image(bench.get_or_insert_with(Bench::new), *first == 1, parts);
    });
}

fn use_image(bench: &Bench, read_only: bool, parts: &[u8]) {
    bench.reset();
    let (mut rest, mut operations) = (parts, Vec::new());
    while let [kind, len, tail @ ..] = rest {
        let (part, tail) = tail.split_at(tail.len().min(usize::from(*len)));
        rest = tail;
        match (operation(*kind), part) {
            (None, [low, middle, high, bytes @ ..]) => {
                bench.write(u32::from_le_bytes([*low, *middle, *high, 0]).into(), bytes);
            }
            (Some(operation), [low, high, len, ..]) => {
                operations.push((operation, u16::from_le_bytes([*low, *high]), *len));
            }
            _ => {}
        }
    }
    let Ok(disk) = Qcow2::open(&path_of(&bench.file), &options(read_only)) else {
        return;
    };
    for (operation, sector, sectors) in operations {
        carry_out(&disk, operation, sector, sectors);
    }
}

fn operation(kind: u8) -> Option<Operation> {
    Some(match kind {
        1 => Operation::Read,
        2 => Operation::Write,
        3 => Operation::WriteStable,
        4 => Operation::Zero,
        5 => Operation::Unmap,
        6 => Operation::Punch,
        7 => Operation::Flush,
        _ => return None,
    })
}

/// Carries out an operation on a range of the disk. The operation may fail.
fn carry_out(disk: &Qcow2, operation: Operation, sector: u16, sectors: u8) {
    let offset = u64::from(sector) * SECTOR_SIZE % disk.size();
    let len = (u64::from(sectors) * SECTOR_SIZE).min(MAX_LEN);
    let range = Range {
        offset,
        len: len.min(disk.size() - offset),
    };
    let moved = match operation {
        Operation::Read | Operation::Write | Operation::WriteStable => range.len,
        _ => 0,
    };
    if let Ok(count) = disk.carry_out(operation, range, &mut vec![2; moved as usize]) {
        assert_eq!(count as u64, moved, "the whole range was moved");
    }
}
