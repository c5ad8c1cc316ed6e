//! Loop devices for tests of host block devices.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A block device over a file. Dropping this object detaches the device from the file.
pub(crate) struct LoopDevice {
    pub path: PathBuf,
}

impl LoopDevice {
    /// Makes a loop device with sectors of `sector` bytes. If the system refuses the loop device,
    /// prints the reason and returns `None`.
    pub fn new(file: &Path, sector: u32) -> Option<Self> {
        let sector = sector.to_string();
        let output = Command::new("losetup")
            .args(["--find", "--show", "--sector-size", &sector])
            .arg(file)
            .output();
        let reason = match output {
            Ok(output) if output.status.success() => {
                let path = String::from_utf8(output.stdout).unwrap();
                let path = PathBuf::from(path.trim());
                return Some(Self { path });
            }
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        println!(
            "SKIPPED, because there is no loop device: {}",
            reason.trim()
        );
        None
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let status = Command::new("losetup").arg("-d").arg(&self.path).status();
        println!("losetup -d {}: {status:?}", self.path.display());
    }
}
