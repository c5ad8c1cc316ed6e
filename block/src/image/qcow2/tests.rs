use super::*;
use crate::image::{Cache, Format, Storage};
use crate::{Image, ImageError, OpenOptions, Qcow2Error};
use imago::FormatCreateBuilder;
use proptest::prelude::*;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

mod backing;

type Layer = imago::qcow2::Qcow2<File>;

const SIZE: u64 = 1 << 20;
const CLUSTER: usize = 4096;

const OPTIONS: OpenOptions = OpenOptions {
    format: Format::Qcow2,
    read_only: false,
    discard: true,
    block_size: None,
    cache: Cache::Writeback,
    lock: false,
    lock_patience: Duration::ZERO,
    backing_folders: Vec::new(),
};

/// Makes an image of `size` bytes. `backing` is the name and format of its backing file, if any.
fn create(path: &Path, size: u64, backing: Option<(&str, &str)>) {
    let new = fs::File::create_new(path).unwrap();
    drop(new);
    let file = fs::File::options().read(true).write(true).open(path);
    let mut builder = Layer::create_builder(file.unwrap().try_into().unwrap())
        .size(size)
        .cluster_size(CLUSTER);
    if let Some((name, format)) = backing {
        builder = builder.backing(name.to_owned(), format.to_owned());
    }
    builder.create().unwrap();
}

struct Rig {
    folder: TempDir,
}

impl Rig {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes an image with this name. `backing` is the name and format of its backing file, if any.
    fn image(&self, name: &str, backing: Option<(&str, &str)>) -> PathBuf {
        let path = self.path(name);
        create(&path, SIZE, backing);
        path
    }
}

fn open(path: &Path) -> Qcow2 {
    Qcow2::open(path, &OPTIONS).unwrap()
}

fn refusal(path: &Path) -> Qcow2Error {
    match Image::open(path, OPTIONS) {
        Err(ImageError::Qcow2 { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

fn read(disk: &Qcow2, offset: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0xee; len as usize];
    let range = Range { offset, len };
    let count = disk.carry_out(Operation::Read, range, &mut bytes);
    assert_eq!(count.unwrap() as u64, len);
    bytes
}

fn write(disk: &Qcow2, operation: Operation, offset: u64, bytes: &[u8]) {
    let len = bytes.len() as u64;
    let range = Range { offset, len };
    let count = disk.carry_out(operation, range, &mut bytes.to_vec());
    assert_eq!(count.unwrap(), bytes.len());
}

fn change(disk: &Qcow2, operation: Operation, offset: u64, len: u64) {
    let range = Range { offset, len };
    disk.carry_out(operation, range, &mut []).unwrap();
}

#[test]
fn written_data_is_there_when_the_image_is_opened_again() {
    let rig = Rig::new();
    let path = rig.image("disk", None);
    let disk = open(&path);
    assert_eq!(
        (disk.size(), disk.abilities().opt_io),
        (SIZE, CLUSTER as u32)
    );
    assert_eq!(read(&disk, 0, SIZE), vec![0; SIZE as usize]);
    write(&disk, Operation::Write, 512, &[1; 9000]);
    write(&disk, Operation::WriteStable, SIZE - 512, &[2; 512]);
    change(&disk, Operation::Flush, 0, 0);
    // The image is opened a second time while `disk` has it open. Both show the stable data.
    for disk in [open(&path), disk] {
        let mut expected = vec![0; SIZE as usize];
        expected[512..9512].fill(1);
        expected[SIZE as usize - 512..].fill(2);
        assert!(read(&disk, 0, SIZE) == expected);
    }
}

#[test]
fn zeroed_and_discarded_ranges_hide_the_backing_image() {
    let rig = Rig::new();
    fs::write(rig.path("base"), vec![7; SIZE as usize]).unwrap();
    let disk = open(&rig.image("disk", Some(("base", "raw"))));
    write(&disk, Operation::Write, 0, &[1; 4 * CLUSTER]);
    let cluster = CLUSTER as u64;
    change(&disk, Operation::Zero, 512, cluster);
    change(&disk, Operation::Unmap, 2 * cluster, cluster);
    change(&disk, Operation::Unmap, 8 * cluster, 512);
    // A discard frees only whole clusters.
    change(&disk, Operation::Punch, 3 * cluster, cluster + 512);
    let mut expected = vec![7; SIZE as usize];
    expected[..4 * CLUSTER].fill(1);
    expected[512..512 + CLUSTER].fill(0);
    expected[2 * CLUSTER..4 * CLUSTER].fill(0);
    expected[8 * CLUSTER..8 * CLUSTER + 512].fill(0);
    assert!(read(&disk, 0, SIZE) == expected);
    for operation in [
        Operation::Discard,
        Operation::SecureErase,
        Operation::Allocate,
    ] {
        let range = Range {
            offset: 0,
            len: 512,
        };
        let error = disk.carry_out(operation, range, &mut []).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
    }
}

#[test]
fn a_chain_is_read_through_and_only_its_top_is_written() {
    let rig = Rig::new();
    fs::create_dir(rig.path("below")).unwrap();
    fs::write(rig.path("below/base"), vec![1; SIZE as usize / 2]).unwrap();
    let middle = rig.path("below/middle");
    create(&middle, SIZE, Some(("base", "raw")));
    write(&open(&middle), Operation::Write, 512, &[2; 512]);
    let top = rig.image("top", Some(("below/middle", "qcow2")));
    let before = fs::read(&middle).unwrap();
    let disk = open(&top);
    write(&disk, Operation::Write, 1024, &[3; 512]);
    let mut expected = vec![0; SIZE as usize];
    expected[..SIZE as usize / 2].fill(1);
    expected[512..1024].fill(2);
    expected[1024..1536].fill(3);
    assert!(read(&disk, 0, SIZE) == expected);
    drop(disk);
    assert!(fs::read(&middle).unwrap() == before);
    assert!(read(&open(&top), 0, SIZE) == expected);
}

#[test]
fn threads_may_use_an_image_at_the_same_time() {
    let rig = Rig::new();
    let path = rig.image("disk", None);
    let disk = open(&path);
    const EACH: u64 = SIZE / 8;
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let disk = &disk;
            scope.spawn(move || {
                let byte = thread as u8 + 1;
                for block in 0..EACH / 2048 {
                    let offset = EACH * thread + 2048 * block;
                    write(disk, Operation::Write, offset, &[byte; 2048]);
                    assert!(read(disk, offset, 2048) == [byte; 2048]);
                    if block % 16 == 0 {
                        change(disk, Operation::Punch, offset, 2048);
                        write(disk, Operation::Write, offset, &[byte; 2048]);
                        change(disk, Operation::Flush, 0, 0);
                    }
                }
            });
        }
    });
    for disk in [disk, open(&path)] {
        for thread in 0..8 {
            let all = vec![thread as u8 + 1; EACH as usize];
            assert!(read(&disk, EACH * thread, EACH) == all);
        }
    }
}

#[test]
fn zeroing_a_sector_does_not_lose_a_write_to_its_cluster() {
    let rig = Rig::new();
    let disk = open(&rig.image("disk", None));
    let sectors = SIZE / 512;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for sector in (0..sectors).step_by(2) {
                write(&disk, Operation::Write, 512 * sector, &[1; 512]);
            }
        });
        scope.spawn(|| {
            for sector in (1..sectors).step_by(2) {
                change(&disk, Operation::Zero, 512 * sector, 512);
            }
        });
    });
    for sector in 0..sectors {
        let byte = 1 - sector as u8 % 2;
        assert!(read(&disk, 512 * sector, 512) == [byte; 512], "{sector}");
    }
}

#[test]
fn only_version_3_can_discard_and_zero() {
    let rig = Rig::new();
    let path = rig.image("disk", None);
    let image = Image::open(&path, OPTIONS).unwrap();
    assert_eq!(image.abilities().discard, Some(CLUSTER as u32));
    assert!(image.limits().discard && image.limits().write_zeroes);
    assert!(!image.limits().secure_erase && image.is_formatted());
    image.sync().unwrap();
    drop(image);
    put(&path, 4, &2u32.to_be_bytes());
    let image = Image::open(&path, OPTIONS).unwrap();
    assert!(!image.limits().discard && !image.limits().write_zeroes);
}

#[test]
fn a_read_only_image_is_never_written() {
    let rig = Rig::new();
    let path = rig.image("disk", None);
    write(&open(&path), Operation::Write, 0, &[5; 512]);
    let before = fs::read(&path).unwrap();
    let options = OpenOptions {
        read_only: true,
        ..OPTIONS
    };
    let disk = Qcow2::open(&path, &options).unwrap();
    assert_eq!(read(&disk, 0, 512), [5; 512]);
    let range = Range {
        offset: 0,
        len: 512,
    };
    let written = disk.carry_out(Operation::Write, range, &mut [6; 512]);
    written.unwrap_err();
    drop(disk);
    assert!(fs::read(&path).unwrap() == before);
}

/// Writes bytes into the file of an image.
fn put(path: &Path, offset: u64, bytes: &[u8]) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

#[test]
fn an_image_that_cannot_be_served_is_refused_with_the_reason_and_not_changed() {
    let cases: [(u64, &[u8], &str); 16] = [
        (0, b"QFI\0", "it is not a qcow2 image"),
        (4, &[0, 0, 0, 1], "version 1"),
        (4, &[0, 0, 0, 4], "version 4"),
        (20, &[0, 0, 0, 8], "cluster size"),
        (20, &[0xff; 4], "cluster size"),
        (24, &[0; 8], "disk has 0 bytes"),
        (31, &[1], "disk has 1048577 bytes"),
        (24, &[0x7f, 0xff, 0xff, 0xff], "L1 table is too small"),
        (32, &[0, 0, 0, 2], "encrypted"),
        (36, &[0xff; 4], "L1 table is too large"),
        (48, &[0x7f], "refcount table"),
        (56, &[0; 4], "refcount table"),
        (79, &[1], "not closed properly"),
        (79, &[2], "not closed properly"),
        (79, &[4], "a separate data file"),
        (72, &[0x80], "an unknown feature"),
    ];
    for (offset, bytes, text) in cases {
        let rig = Rig::new();
        let path = rig.image("disk", None);
        put(&path, offset, bytes);
        let before = fs::read(&path).unwrap();
        let error = refusal(&path).to_string();
        assert!(error.contains(text) && !error.contains('\n'), "{error}");
        assert!(fs::read(&path).unwrap() == before, "{text}");
    }
    let rig = Rig::new();
    fs::write(rig.path("short"), b"QFI\xfb").unwrap();
    assert!(matches!(refusal(&rig.path("short")), Qcow2Error::NotQcow2));
}

#[test]
fn a_backing_file_that_cannot_be_used_is_refused_with_the_reason() {
    let refusal = |backing: Option<(&str, &str)>| {
        let rig = Rig::new();
        refusal(&rig.image("disk", backing))
    };
    let itself = refusal(Some(("disk", "qcow2")));
    assert!(matches!(itself, Qcow2Error::Cycle));
    let other = refusal(Some(("base", "vmdk")));
    assert!(matches!(other, Qcow2Error::BackingFormat { .. }));
    let remote = refusal(Some(("nbd://host/disk", "raw")));
    assert!(matches!(remote, Qcow2Error::NotAFile(_)));
    let rig = Rig::new();
    let missing = rig.image("disk", Some(("missing", "raw")));
    let missing = Image::open(missing, OPTIONS).unwrap_err();
    assert!(matches!(missing, ImageError::Missing(path) if path.ends_with("missing")));
    // The next image names a backing file but not the format of the backing file, because the test
    // overwrites the header extension that holds the format.
    let rig = Rig::new();
    fs::write(rig.path("base"), [0; 512]).unwrap();
    let path = rig.image("disk", Some(("base", "raw")));
    let header = fs::read(&path).unwrap();
    let format = 0xe279_2acau32.to_be_bytes();
    let at = header.windows(4).position(|four| four == format).unwrap();
    put(&path, at as u64, &[0, 0, 0, 1]);
    let error = self::refusal(&path);
    assert!(matches!(error, Qcow2Error::NoBackingFormat { file } if file == "base"));
}

#[test]
fn a_chain_has_at_most_32_backing_images() {
    let rig = Rig::new();
    for image in 0..34 {
        let below = format!("disk{}", image - 1);
        let below = (image > 0).then_some((below.as_str(), "qcow2"));
        rig.image(&format!("disk{image}"), below);
    }
    open(&rig.path("disk32"));
    let error = refusal(&rig.path("disk33"));
    assert!(matches!(error, Qcow2Error::TooDeep(32)), "{error}");
}

#[test]
fn a_backing_image_in_use_cannot_be_opened_for_writing() {
    let rig = Rig::new();
    let base = rig.image("base", None);
    let top = rig.image("top", Some(("base", "qcow2")));
    let options = OpenOptions {
        lock: true,
        ..OPTIONS
    };
    let image = Image::open(&top, options.clone()).unwrap();
    let other = Image::open(&base, options.clone()).unwrap_err();
    assert!(matches!(other, ImageError::InUse(_)), "{other}");
    let reader = OpenOptions {
        read_only: true,
        ..options
    };
    Image::open(&base, reader).unwrap();
    drop(image);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn every_operation_on_a_corrupt_image_returns(
        flips in prop::collection::vec((0..6u64 * CLUSTER as u64, any::<u8>()), 1..12),
        header in prop::collection::vec((0..112u64, any::<u8>()), 0..3),
    ) {
        let rig = Rig::new();
        let path = rig.image("disk", None);
        write(&open(&path), Operation::WriteStable, 512, &[1; 3 * CLUSTER]);
        for (offset, byte) in flips.into_iter().chain(header) {
            put(&path, offset, &[byte]);
        }
        let Ok(image) = Image::open(&path, OPTIONS) else {
            return Ok(());
        };
        let Storage::Qcow2(disk) = &image.storage else {
            panic!("it has a format");
        };
        // Each operation may fail, but has to end.
        let range = |offset, len| Range { offset, len };
        let end = disk.size() - 512;
        for offset in [0, 512, 4096, end] {
            let _ = disk.carry_out(Operation::Read, range(offset, 512), &mut [0; 512]);
            let _ = disk.carry_out(Operation::Write, range(offset, 512), &mut [3; 512]);
        }
        let _ = disk.carry_out(Operation::Zero, range(0, 8192), &mut []);
        let _ = disk.carry_out(Operation::Punch, range(4096, 8192), &mut []);
        let _ = disk.carry_out(Operation::Flush, range(0, 0), &mut []);
    }
}
