//! The demo, in which a VM serves a disk to another VM. The demo begins with an empty disk, and
//! ends when the host has checked the files on the disk.

use std::path::Path;
use std::time::Instant;

use hwtests::scenario::{BDF, DISK_SIZE, DeviceVm, Proxy, end};
use hwtests::workload::{FioReport, Written, check_image, fio_verify, write_files};
use hwtests::{Lab, Result, progress};

/// Prepares the demo, runs it, and prints the results.
pub fn run() -> Result<()> {
    let start = Instant::now();
    progress("preparing (fetches about 160 MB the first time)");
    let lab = Lab::open("demo")?;
    let (old, new) = (&lab.machine.old_qemu, &lab.machine.new_qemu);
    let image = lab.run.image("disk.img", DISK_SIZE)?;

    progress("starting vvu-proxy");
    let proxy = Proxy::start(&lab)?;
    progress(format!(
        "booting the device VM (QEMU {}) and vvu-block in it",
        new.version()
    ));
    let device = DeviceVm::start(&lab, &proxy, &image)?;
    progress(format!("booting the sibling VM (QEMU {})", old.version()));
    let sibling = proxy.sibling(&lab, "sibling", old)?;

    progress("sibling: formats its disk, writes files, reads them back");
    let written = write_files(&sibling)?;
    progress("sibling: fio writes random blocks and verifies them");
    let fio = fio_verify(&sibling)?;

    progress("shutting all down");
    sibling.shutdown()?;
    device.end()?;
    end(&proxy.process)?;
    progress("host: checks the disk image");
    check_image(&lab, &image, &written)?;

    let (old, new) = (old.version().to_owned(), new.version().to_owned());
    let logs = lab.run.keep_logs();
    print_report(&written, &fio, (&old, &new), &logs);
    println!("  took      {} s", start.elapsed().as_secs());
    Ok(())
}

fn print_report(written: &Written, fio: &FioReport, (old, new): (&str, &str), logs: &Path) {
    println!(
        "
A disk image in one VM has served another VM.

  sibling VM (QEMU {old}): virtio-blk driver
     |  vhost-user, its memory shared by file
  vvu-proxy on the host: VVU PCI function
     |  vfio-user
  device VM (QEMU {new}): vvu-block --pci {BDF} /dev/vda, through vfio-pci and a vIOMMU
     |
  disk.img

  sibling   formatted ext4, wrote {} files, {} bytes; the same after mounting again
  sibling   fio wrote {} at random, in blocks of 512 bytes to 256 KiB, and read {} back right
  host      e2fsck finds disk.img clean; it holds the same files",
        written.files(),
        written.bytes,
        fio.written,
        fio.verified,
    );
    println!("  sha256 of the big ones, in the sibling and on the host:");
    for line in written.big_files() {
        println!("            {line}");
    }
    println!("  logs      {}", logs.display());
}
