//! What a sibling does with its disk, and how the host checks the image afterwards.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::lab::Lab;
use crate::vm::Vm;

/// The disk in a sibling that has one.
pub const DISK: &str = "/dev/vda";

/// How long one workload may take.
const LONG: Duration = Duration::from_secs(180);

/// How much of the disk, in MiB, the file system takes; the rest is for [`fio_verify`].
pub const FILE_SYSTEM: u64 = 48;

/// The files that a workload wrote: their checksums as `sha256sum` prints them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// A line for each file: checksum, two spaces, path below the file system's root.
    pub sums: String,
    /// Bytes in all files.
    pub bytes: u64,
}

impl Written {
    /// How many files.
    pub fn files(&self) -> usize {
        self.sums.lines().count()
    }

    /// The lines of the big files.
    pub fn big_files(&self) -> impl Iterator<Item = &str> {
        self.sums.lines().filter(|line| line.contains("./big/"))
    }
}

/// Formats the disk as ext4 and writes files of random content, of many sizes, in folders.
///
/// Checksums are of the content before it touches the disk. The files are read back twice: after
/// unmounting and mounting again, so not from the guest's page cache.
pub fn write_files(sibling: &Vm) -> Result<Written> {
    // By path, since busybox's shell prefers a command of its own.
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

/// Mounts the disk, compares all files with their checksums, and returns their bytes in all.
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
        .context("files differ after reading back")?;
    bytes
        .trim()
        .parse()
        .with_context(|| format!("not a number of bytes: {bytes:?}"))
}

/// What fio did.
#[derive(Clone, Copy, Debug)]
pub struct FioReport {
    /// Bytes it wrote.
    pub written: u64,
    /// Bytes it read back and found right.
    pub verified: u64,
}

/// Runs fio in the guest and returns its report.
pub fn fio(sibling: &Vm, arguments: &str) -> Result<Value> {
    let script = format!("/usr/bin/fio {arguments} --output-format=json");
    let output = sibling.check_within(&script, LONG).context("fio fails")?;
    // Notes come before the report.
    let report = output.find('{').map(|start| &output[start..]);
    serde_json::from_str(report.unwrap_or_default()).context("cannot read fio's report")
}

/// Writes random blocks of mixed sizes behind the file system and verifies their checksums.
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
        bail!("fio's report lacks its bytes");
    };
    ensure!(
        written > 0 && written == verified,
        "fio wrote {written}, but verified {verified}"
    );
    Ok(FioReport { written, verified })
}

/// Checks on the host that the image holds a clean file system with the very files.
///
/// The image must not be in use: its back-end has ended or has been told to flush.
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
    fs::create_dir(&folder).context("cannot make a folder for the image's files")?;
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
    crate::tree::quiet(check).context("files in the image differ from what was written")?;
    Ok(())
}

/// Whether the first virtio disk has packed virtqueues.
pub fn has_packed_rings(guest: &Vm) -> Result<bool> {
    // A digit for each feature.
    let features = guest.check("cat /sys/block/vda/device/features")?;
    Ok(features.as_bytes().get(34) == Some(&b'1'))
}
