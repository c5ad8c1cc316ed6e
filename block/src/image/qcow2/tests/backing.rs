//! Tests of the folders from which an image may open backing images.

use super::*;
use crate::loop_device::LoopDevice;
use std::os::unix::fs::symlink;

/// Opens an image that names a backing file. Returns `None` if the backing file was opened, and the
/// real path of the backing file if it was refused.
fn refused(image: &Path, allowed: &[&Path]) -> Option<PathBuf> {
    let options = OpenOptions {
        backing_folders: allowed.iter().map(|&folder| folder.to_owned()).collect(),
        ..OPTIONS
    };
    match Image::open(image, options) {
        Ok(_) => None,
        Err(ImageError::Qcow2 {
            source: Qcow2Error::BackingElsewhere { file },
            ..
        }) => Some(file),
        Err(other) => panic!("{other}"),
    }
}

/// A folder `vm`, which holds images, and a folder `other`, which holds a file `secret`.
fn folders() -> (Rig, PathBuf) {
    let rig = Rig::new();
    for folder in ["vm", "vm/below", "other"] {
        fs::create_dir(rig.path(folder)).unwrap();
    }
    for file in ["vm/base", "vm/below/base", "other/secret"] {
        fs::write(rig.path(file), [0; 512]).unwrap();
    }
    let secret = fs::canonicalize(rig.path("other/secret")).unwrap();
    (rig, secret)
}

#[test]
fn an_image_may_use_files_of_its_own_folder_however_it_names_them() {
    let (rig, _) = folders();
    let absolute = rig.path("vm/base").display().to_string();
    let file = format!("file:{absolute}");
    symlink(rig.path("vm/base"), rig.path("other/link")).unwrap();
    let names = [
        "base",
        "below/base",
        "./below/../base",
        "../vm/base",
        "../other/link",
        &absolute,
        &file,
    ];
    for (number, name) in names.into_iter().enumerate() {
        let image = rig.image(&format!("vm/disk{number}"), Some((name, "raw")));
        assert_eq!(refused(&image, &[]), None, "{name}");
        // If the image is opened through a symbolic link, its own folder is the folder of the file,
        // and not the folder of the link.
        let link = rig.path(&format!("vm/below/link{number}"));
        symlink(&image, &link).unwrap();
        if name.starts_with(['/', 'f']) {
            assert_eq!(refused(&link, &[]), None, "{name}");
        }
    }
}

#[test]
fn an_image_may_use_no_other_file_without_permission() {
    let (rig, secret) = folders();
    symlink(&secret, rig.path("vm/link")).unwrap();
    symlink(rig.path("other"), rig.path("vm/folder")).unwrap();
    let absolute = secret.display().to_string();
    let similar = "../vm-2/secret";
    fs::create_dir(rig.path("vm-2")).unwrap();
    fs::write(rig.path("vm-2/secret"), [0; 512]).unwrap();
    let names = [
        "../other/secret",
        "link",
        "folder/secret",
        &absolute,
        similar,
    ];
    for (number, name) in names.into_iter().enumerate() {
        let image = rig.image(&format!("vm/disk{number}"), Some((name, "raw")));
        let file = refused(&image, &[]).expect(name);
        assert_eq!(file.file_name().unwrap(), "secret", "{name}");
        let folder = file.parent().unwrap();
        assert_eq!(refused(&image, &[&rig.path("vm/below"), folder]), None);
        assert_eq!(refused(&image, &[Path::new("/")]), None);
        assert_eq!(refused(&image, &[&rig.path("vm/below")]), Some(file));
    }
}

#[test]
fn all_images_of_a_chain_may_use_the_same_folders() {
    let (rig, secret) = folders();
    rig.image("other/middle", Some(("secret", "raw")));
    let top = rig.image("vm/top", Some(("../other/middle", "qcow2")));
    let middle = secret.with_file_name("middle");
    assert_eq!(refused(&top, &[]), Some(middle.clone()));
    // Allowing a backing image does not allow the other files in its folder.
    assert_eq!(refused(&top, &[&middle]), Some(secret));
    assert_eq!(refused(&top, &[&rig.path("other")]), None);
}

#[test]
fn an_image_on_a_block_device_may_not_use_other_devices() {
    let (rig, _) = folders();
    let image = rig.path("vm/disk");
    create(&image, SIZE, Some(("null", "raw")));
    let Some(device) = LoopDevice::new(&image, 512) else {
        return;
    };
    assert_eq!(refused(&device.path, &[]), Some("/dev/null".into()));
}

#[test]
fn a_folder_that_does_not_exist_cannot_be_allowed() {
    let (rig, _) = folders();
    let options = OpenOptions {
        backing_folders: vec![rig.path("missing")],
        ..OPTIONS
    };
    let error = Image::open(rig.image("vm/disk", None), options).unwrap_err();
    assert!(matches!(error, ImageError::BackingFolder { .. }), "{error}");
}
