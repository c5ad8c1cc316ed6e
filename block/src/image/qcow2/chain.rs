//! Opens an image together with all its backing images, because later, in its jail, the process
//! cannot open files.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};

use imago::raw::Raw;
use imago::{FormatAccess, StorageOpenOptions};

use super::Qcow2;
use super::folders::Folders;
use super::header::Qcow2Header;
use crate::image::file::{check_same, open_checked, open_error};
use crate::image::{Cache, ImageError, OpenOptions, Qcow2Error};

type StorageFile = imago::file::File;
type Layer = imago::qcow2::Qcow2<StorageFile>;

/// Maximum number of backing images in a chain.
const MAX_DEPTH: usize = 32;

/// A backing image, as an image names it.
struct Backing {
    /// The image that names the backing image.
    of: PathBuf,
    path: PathBuf,
    raw: bool,
}

impl Qcow2 {
    /// Opens the qcow2 image at `path` and all its backing images.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, ImageError> {
        let mut chain = Chain {
            files: Vec::new(),
            layers: Vec::new(),
            folders: Folders::of(path, &options.backing_folders)?,
            cache: options.cache,
        };
        let (header, mut backing) = chain.open_layer(path, path, options)?;
        let below = OpenOptions {
            read_only: true,
            ..options.clone()
        };
        let mut base = None;
        let mut names = Vec::new();
        while let Some(named) = backing.take() {
            let real = chain.find(&named)?;
            names.push(real.display().to_string());
            if named.raw {
                base = Some(chain.open_raw(&real, &below)?);
            } else {
                backing = chain.open_layer(&real, &named.path, &below)?.1;
            }
        }
        log_backing_files(path, &names);
        let (disk, files) = chain.assemble(path, base)?;
        Ok(Self {
            disk: Arc::new(RwLock::new(disk)),
            size: header.size,
            cluster_size: 1 << header.cluster_bits,
            zeroes: header.version >= 3,
            broken: AtomicBool::new(false),
            files,
        })
    }
}

/// The images that were opened so far.
struct Chain {
    /// The opened and locked files. The first file is the image itself.
    files: Vec<File>,
    /// The opened qcow2 images, in the order of their files. If the last file is a raw image, it is
    /// not in this list.
    layers: Vec<Layer>,
    folders: Folders,
    cache: Cache,
}

impl Chain {
    /// The real path of a backing image that may be opened.
    fn find(&self, backing: &Backing) -> Result<PathBuf, ImageError> {
        let path = &backing.path;
        let real = fs::canonicalize(path).map_err(|error| open_error(path, error))?;
        if !self.folders.contain(&real) {
            let error = Qcow2Error::BackingElsewhere { file: real };
            return Err(qcow2_error(&backing.of, error));
        }
        Ok(real)
    }

    /// Opens the qcow2 image at `path`. The user, or the image above it, names it `name`. Names of
    /// backing images are relative to the folder of `name`.
    fn open_layer(
        &mut self,
        path: &Path,
        name: &Path,
        options: &OpenOptions,
    ) -> Result<(Qcow2Header, Option<Backing>), ImageError> {
        let failed = |source: Qcow2Error| qcow2_error(path, source);
        let file = open_checked(path, options)?;
        self.check_new(&file).map_err(failed)?;
        let header = Qcow2Header::read(&file).map_err(failed)?;
        let writable = !options.read_only;
        if writable {
            header.check_refcounts(&file).map_err(failed)?;
        }
        let storage = self.storage(path, &file, writable).map_err(failed)?;
        let layer = read(|| Layer::open_image(storage, writable)).map_err(failed)?;
        let backing = backing(name, &layer).map_err(failed)?;
        self.files.push(file);
        self.layers.push(layer);
        Ok((header, backing))
    }

    fn open_raw(
        &mut self,
        path: &Path,
        options: &OpenOptions,
    ) -> Result<FormatAccess<StorageFile>, ImageError> {
        let failed = |source: Qcow2Error| qcow2_error(path, source);
        let file = open_checked(path, options)?;
        self.check_new(&file).map_err(failed)?;
        let storage = self.storage(path, &file, false).map_err(failed)?;
        self.files.push(file);
        let raw = read(|| Raw::open_image(storage, false)).map_err(failed)?;
        Ok(FormatAccess::new(raw))
    }

    /// Fails if the chain has too many images, or if the file is already in the chain.
    fn check_new(&self, file: &File) -> Result<(), Qcow2Error> {
        if self.files.len() > MAX_DEPTH {
            return Err(Qcow2Error::TooDeep(MAX_DEPTH));
        }
        let one = file.metadata()?;
        for other in &self.files {
            let other = other.metadata()?;
            if (one.dev(), one.ino()) == (other.dev(), other.ino()) {
                return Err(Qcow2Error::Cycle);
            }
        }
        Ok(())
    }

    /// The file for the qcow2 library. For direct I/O the image is opened again.
    fn storage(&self, path: &Path, file: &File, writable: bool) -> Result<StorageFile, Qcow2Error> {
        let direct = self.cache == Cache::None;
        let options = StorageOpenOptions::new().write(writable).direct(direct);
        let file = if direct {
            let again = File::options()
                .read(true)
                .write(writable)
                .custom_flags(libc::O_DIRECT)
                .open(path)?;
            check_same(file, &again)?;
            again
        } else {
            file.try_clone()?
        };
        Ok(StorageFile::from_open_file(file, options)?)
    }

    /// Makes each opened image the backing image of the image before it in the list.
    fn assemble(
        self,
        path: &Path,
        base: Option<FormatAccess<StorageFile>>,
    ) -> Result<(FormatAccess<StorageFile>, Vec<File>), ImageError> {
        let mut below = base;
        for mut layer in self.layers.into_iter().rev() {
            layer.set_data_file(None);
            layer.set_backing(below);
            below = Some(FormatAccess::new(layer));
        }
        match below {
            Some(disk) => Ok((disk, self.files)),
            // `layers` cannot be empty, because it always contains the image itself.
            None => Err(qcow2_error(path, Qcow2Error::NotQcow2)),
        }
    }
}

/// Calls the qcow2 library. A panic becomes an error, because a corrupt image must not end the
/// program.
fn read<T>(open: impl FnOnce() -> std::io::Result<T>) -> Result<T, Qcow2Error> {
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(opened) => Ok(opened?),
        Err(_) => Err(Qcow2Error::Corrupt("its header or tables are invalid")),
    }
}

/// The backing image that the image `of` names in its header. A relative name is relative to the
/// folder of `of`.
fn backing(of: &Path, layer: &Layer) -> Result<Option<Backing>, Qcow2Error> {
    let Some(file) = layer.implicit_backing_file().cloned() else {
        return Ok(None);
    };
    let raw = match layer.implicit_backing_format().map(String::as_str) {
        Some("raw" | "file" | "host_device") => true,
        Some("qcow2") => false,
        Some(format) => {
            let format = format.to_owned();
            return Err(Qcow2Error::BackingFormat { file, format });
        }
        None => return Err(Qcow2Error::NoBackingFormat { file }),
    };
    let name = file.strip_prefix("file:").unwrap_or(&file);
    // A colon before the first slash marks a URL such as `nbd://`, as in QEMU.
    let start = name.split('/').next();
    if start.is_some_and(|start| start.contains(':')) {
        return Err(Qcow2Error::NotAFile(file));
    }
    let folder = of.parent().unwrap_or(Path::new(""));
    Ok(Some(Backing {
        of: of.into(),
        path: folder.join(name),
        raw,
    }))
}

/// Logs all files in one message, because the log may drop messages that follow each other quickly.
fn log_backing_files(path: &Path, names: &[String]) {
    if !names.is_empty() {
        let (path, names) = (path.display(), names.join(", "));
        tracing::info!("backing files of disk image {path}: {names}");
    }
}

fn qcow2_error(path: &Path, source: Qcow2Error) -> ImageError {
    ImageError::Qcow2 {
        path: path.into(),
        source,
    }
}
