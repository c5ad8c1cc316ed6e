//! The disk image that all peers of a comparison serve.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::plan::Medium;
use crate::rundir::RunDir;

/// The size of an image in bytes.
const SIZE: u64 = 256 << 20;

/// A disk image. The image's file is removed when this value is dropped.
///
/// All peers (compared programs) use the same image, because the speed depends on the addresses of
/// an image's pages and blocks. In a test with a separate image for each peer, the results differed
/// by up to 30 %, although all peers were the same program.
pub struct Image {
    path: PathBuf,
}

impl Image {
    /// Makes an image with random bytes, so that it has no holes.
    pub fn new(name: &str, medium: Medium, run: &RunDir) -> Result<Self> {
        let name = format!("{name}-{}.img", medium.name());
        let image = Self {
            path: match medium {
                Medium::Tmpfs => run.memory(&name),
                Medium::Cached | Medium::Direct => run.file(&name),
            },
        };
        let context = || format!("cannot make the image {}", image.path.display());
        let mut random = File::open("/dev/urandom").context("cannot read /dev/urandom")?;
        let mut noise = vec![0; 1 << 20];
        random.read_exact(&mut noise).with_context(context)?;
        let mut options = OpenOptions::new();
        let file = options.create_new(true).write(true).open(&image.path);
        let mut file = file.with_context(context)?;
        for _ in 0..SIZE >> 20 {
            file.write_all(&noise).with_context(context)?;
        }
        image.settle()?;
        Ok(image)
    }

    /// The path of the image.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Flushes all written data to the disk, so that the kernel does not write the data during
    /// later measurements.
    pub fn settle(&self) -> Result<()> {
        let file = File::open(&self.path);
        let synced = file.and_then(|file| file.sync_all());
        synced.with_context(|| format!("cannot sync the image {}", self.path.display()))
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
