//! Uses the disk of a sibling VM (a guest whose disk a back-end serves), and checks the disk image
//! on the host afterwards.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::lab::Lab;
use crate::vm::Vm;

/// The device node of the disk in a sibling VM.
pub const DISK: &str = "/dev/vda";

/// The time limit for each command of a workload.
const LONG: Duration = Duration::from_secs(180);

/// The size of the file system on the disk, in MiB. The disk's space after the file system is for
/// [`fio_verify`].
pub const FILE_SYSTEM: u64 = 48;

/// The files that a workload wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The checksums of the files, one line per file in the format of `sha256sum`: the checksum,
    /// two spaces, and the path from the root of the file system.
    pub sums: String,
    /// The total size of all files in bytes.
    pub bytes: u64,
}

impl Written {
    /// The number of files.
    pub fn files(&self) -> usize {
        self.sums.lines().count()
    }

    /// The lines of [`Written::sums`] for the files in the folder `big`.
    pub fn big_files(&self) -> impl Iterator<Item = &str> {
        self.sums.lines().filter(|line| line.contains("./big/"))
    }
}

/// Formats the disk as ext4, and writes files of random content and of many sizes.
///
/// The checksums are computed before the content is written to the disk. The file system is mounted
/// again before the files are checked. So the check reads from the disk, not from the guest's page
/// cache.
pub fn write_files(sibling: &Vm) -> Result<Written> {
    // mke2fs has to be named by its whole path, because busybox's shell prefers busybox's mke2fs.
    sibling.check_within(
        &format!("/usr/bin/mke2fs -q -F -t ext4 {DISK} {FILE_SYSTEM}M"),
        LONG,
    )?;
    let script = format!(
        "set -e
        mkdir -p /tmp/new /mnt && cd /tmp/new
        mkdir small big many
        for size in 0 1 511 512 4095 4096 4097 65536 100003; do
            head -c $size /dev/urandom > small/$size
        done
        for size in 1048576 3000000 8388608; do
            head -c $size /dev/urandom > big/$size
        done
        for i in $(seq 64); do head -c $((i * 97)) /dev/urandom > many/$i; done
        find . -type f | sort | xargs sha256sum > /tmp/sums
        mount -t ext4 {DISK} /mnt
        cp -a . /mnt/
        sync
        umount /mnt
        rm -r /tmp/new
        cat /tmp/sums"
    );
    let sums = sibling.check_within(&script, LONG)?;
    let bytes = check_files(sibling, &sums)?;
    Ok(Written { sums, bytes })
}

/// Mounts the disk, compares all files with their checksums, and returns the total size of all
/// files in bytes.
pub fn check_files(sibling: &Vm, sums: &str) -> Result<u64> {
    let script = format!(
        "set -e
        mkdir -p /mnt
        mount -t ext4 {DISK} /mnt
        cd /mnt
        sha256sum -c > /tmp/result 2>&1 <<'END' || {{ grep -v ': OK' /tmp/result; exit 1; }}
{sums}END
        find . -type f -exec stat -c %s {{}} + | awk '{{ sum += $1 }} END {{ print sum }}'
        cd /
        umount /mnt"
    );
    let bytes = sibling
        .check_within(&script, LONG)
        .context("the files on the disk differ from those written")?;
    bytes
        .trim()
        .parse()
        .with_context(|| format!("not a number of bytes: {bytes:?}"))
}

/// The result of [`fio_verify`].
#[derive(Clone, Copy, Debug)]
pub struct FioReport {
    /// The number of bytes that fio wrote.
    pub written: u64,
    /// The number of bytes that fio read back and verified.
    pub verified: u64,
}

/// Runs fio in the guest and returns its report.
pub fn fio(sibling: &Vm, arguments: &str) -> Result<Value> {
    let script = format!("/usr/bin/fio {arguments} --output-format=json");
    let output = sibling.check_within(&script, LONG).context("fio fails")?;
    // fio may print other text before its JSON report.
    let report = output.find('{').map(|start| &output[start..]);
    serde_json::from_str(report.unwrap_or_default()).context("cannot read fio's report")
}

/// Writes random blocks of mixed sizes to the 64 MiB of the disk after the file system, and
/// verifies the blocks' checksums.
pub fn fio_verify(sibling: &Vm) -> Result<FioReport> {
    let report = fio(
        sibling,
        &format!(
            "--name=verify --filename={DISK} --offset={FILE_SYSTEM}M --size=16M \
             --offset_increment=16M --numjobs=4 --rw=randwrite --bsrange=512-256k --direct=1 \
             --ioengine=libaio --iodepth=16 --verify=crc32c --verify_fatal=1 --do_verify=1 \
             --group_reporting"
        ),
    )
    .context("fio cannot verify the disk")?;
    let bytes = |direction: &str| report["jobs"][0][direction]["io_bytes"].as_u64();
    let (Some(written), Some(verified)) = (bytes("write"), bytes("read")) else {
        bail!("fio's report lacks the number of bytes");
    };
    ensure!(
        written > 0 && written == verified,
        "fio wrote {written}, but verified {verified}"
    );
    Ok(FioReport { written, verified })
}

/// Checks on the host that the image has a clean file system with the files of `written`.
///
/// Before the check, the back-end must have ended, or must have flushed the image. Nothing may
/// write to the image during the check.
pub fn check_image(lab: &Lab, image: &Path, written: &Written) -> Result<()> {
    let image_text = image.to_string_lossy().into_owned();
    lab.machine
        .program("e2fsck")?
        .output(["-f", "-n", &image_text])
        .context("the file system is not clean")?;
    let folder = lab.run.file("image-files");
    if folder.exists() {
        fs::remove_dir_all(&folder).context("cannot remove the files of an earlier check")?;
    }
    fs::create_dir(&folder).context("cannot create a folder for the image's files")?;
    let dump = format!("rdump / {}", folder.display());
    lab.machine
        .program("debugfs")?
        .output(["-R", &dump, &image_text])?;
    for line in written.sums.lines() {
        let (_, path) = line.split_once("  ").context("not a line of sha256sum")?;
        ensure!(
            folder.join(path).is_file(),
            "the image lacks the file {path}"
        );
    }
    compare(&folder, &written.sums)?;
    fs::remove_dir_all(&folder).context("cannot remove the image's files")
}

fn compare(folder: &Path, sums: &str) -> Result<()> {
    let list = folder.join("sums");
    fs::write(&list, sums).context("cannot write the checksums")?;
    let mut command = std::process::Command::new("sha256sum");
    let check = command
        .args(["--check", "--quiet", "sums"])
        .current_dir(folder);
    crate::tree::quiet(check).context("files in the image differ from those written")?;
    Ok(())
}

/// Whether the first virtio disk of the guest has packed virtqueues.
pub fn has_packed_rings(guest: &Vm) -> Result<bool> {
    // The file `features` has a digit for each feature bit. Bit 34 is VIRTIO_F_RING_PACKED.
    let features = guest.check("cat /sys/block/vda/device/features")?;
    Ok(features.as_bytes().get(34) == Some(&b'1'))
}
