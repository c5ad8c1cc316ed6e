use super::*;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn file(dir: &TempDir, size: u64) -> PathBuf {
    let path = dir.path().join("disk.img");
    File::create(&path).unwrap().set_len(size).unwrap();
    path
}

fn refusal(path: impl AsRef<Path>) -> ImageError {
    Image::open(path, OpenOptions::unlocked()).unwrap_err()
}

#[test]
fn a_file_of_whole_sectors_can_be_opened_and_keeps_its_size() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, 4096);
    let image = Image::open(&path, OpenOptions::unlocked()).unwrap();
    assert_eq!(image.sectors(), 8);
    assert!(!image.read_only());
    image.sync().unwrap();
    assert_eq!(fs::metadata(path).unwrap().len(), 4096);
}

#[test]
fn folders_pipes_sockets_and_missing_paths_are_refused() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let missing = dir.path().join("missing");
    assert!(matches!(refusal(missing), ImageError::Missing(_)));
    assert!(matches!(refusal(dir.path()), ImageError::Directory(_)));
    assert!(matches!(refusal(socket), ImageError::NotADisk(_)));
    assert!(matches!(refusal("/dev/null"), ImageError::NotADisk(_)));
}

#[test]
fn an_empty_file_and_a_partial_sector_are_refused() {
    let dir = TempDir::new().unwrap();
    assert!(matches!(refusal(file(&dir, 0)), ImageError::Empty(_)));
    for size in [1, 511, 513, 4095] {
        let error = refusal(file(&dir, size));
        assert!(
            matches!(error, ImageError::PartialSector { size: s, .. } if s == size),
            "{error}"
        );
    }
}

#[test]
fn a_path_that_goes_through_a_file_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, 512).join("below");
    assert!(matches!(refusal(path), ImageError::Open { .. }));
}

#[test]
fn a_running_program_is_readable_but_not_writable() {
    // The image is a running program, because even root cannot open the file of a running program
    // for writing (ETXTBSY). File permissions would not stop root.
    let program = std::env::current_exe().unwrap();
    let error = refusal(&program);
    assert!(matches!(error, ImageError::NotWritable { .. }), "{error}");
    let read_only = Image::open(
        program,
        OpenOptions {
            read_only: true,
            ..OpenOptions::unlocked()
        },
    );
    assert!(!matches!(read_only, Err(ImageError::Open { .. })));
}

#[test]
fn the_block_size_can_be_512_or_4096_and_divides_the_image() {
    let dir = TempDir::new().unwrap();
    let open = |size, block_size| {
        let options = OpenOptions {
            block_size,
            ..OpenOptions::unlocked()
        };
        Image::open(file(&dir, size), options)
    };
    assert_eq!(open(512, None).unwrap().block_size(), 512);
    assert_eq!(open(512, Some(512)).unwrap().block_size(), 512);
    assert_eq!(open(8192, Some(4096)).unwrap().block_size(), 4096);
    for size in [0, 1024, 8192, u32::MAX] {
        let error = open(8192, Some(size)).unwrap_err();
        assert!(matches!(error, ImageError::BlockSize(s) if s == size));
    }
    let error = open(4096 + 512, Some(4096)).unwrap_err();
    assert!(matches!(
        error,
        ImageError::PartialSector { block: 4096, .. }
    ));
}

#[test]
fn the_text_of_a_refusal_is_one_line() {
    let dir = TempDir::new().unwrap();
    for error in [
        refusal(dir.path()),
        refusal(file(&dir, 513)),
        refusal("/nowhere/disk.img"),
    ] {
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

#[test]
fn a_raw_image_that_looks_like_qcow2_is_served_as_raw() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, 4096);
    fs::write(
        &path,
        [b"QFI\xfb\0\0\0\x03".as_slice(), &[0; 4088]].concat(),
    )
    .unwrap();
    let image = Image::open(&path, OpenOptions::unlocked()).unwrap();
    assert_eq!(image.sectors(), 8);
}
