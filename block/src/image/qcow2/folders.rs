//! The folders from which backing images may be opened.
//!
//! The content of an image names its backing image, and the content may come from a stranger. The
//! guest can read all of a backing image. So an image may name only files in its own folder, and in
//! folders that the user allows.

use std::fs;
use std::path::{Path, PathBuf};

use crate::image::ImageError;

/// The folders of one image, without symbolic links and `..`.
#[derive(Debug)]
pub(super) struct Folders(Vec<PathBuf>);

impl Folders {
    /// The folder of the image at `path`, and the folders that the user allows.
    pub fn of(path: &Path, allowed: &[PathBuf]) -> Result<Self, ImageError> {
        let allowed = allowed.iter().map(|folder| {
            fs::canonicalize(folder).map_err(|source| ImageError::BackingFolder {
                path: folder.clone(),
                source,
            })
        });
        let mut folders = allowed.collect::<Result<Vec<_>, _>>()?;
        folders.extend(own_folder(path));
        Ok(Self(folders))
    }

    /// Whether a file is in one of the folders or in a folder below them. `path` has no symbolic
    /// links and no `..`.
    pub fn contain(&self, path: &Path) -> bool {
        self.0.iter().any(|folder| path.starts_with(folder))
    }
}

/// The folder that holds the file of an image. `None` if the image is a block device, because the
/// folder of block devices holds all disks of the host.
fn own_folder(image: &Path) -> Option<PathBuf> {
    let image = fs::canonicalize(image).ok()?;
    if !fs::metadata(&image).ok()?.is_file() {
        return None;
    }
    image.parent().map(Path::to_owned)
}
