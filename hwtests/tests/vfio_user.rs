//! `vvu-block --pci vfio-user:PATH` on the host uses the VVU function of `vvu-proxy`. There is no
//! device VM.

use std::path::Path;

use hwtests::process::Process;
use hwtests::scenario::{DISK_SIZE, Proxy, block, end};
use hwtests::workload::{check_files, check_image, fio_verify, write_files};
use hwtests::{Lab, Result, test};

#[test]
fn a_sibling_uses_the_disk_and_reboots() {
    test("vfio-user", |lab| {
        let image = lab.run.image("disk.img", DISK_SIZE)?;
        let proxy = Proxy::start(lab)?;
        let back_end = start(lab, &proxy, &image)?;
        let sibling = proxy.sibling(lab, "sibling", &lab.machine.old_qemu)?;
        let written = write_files(&sibling)?;
        fio_verify(&sibling)?;
        sibling.reboot()?;
        check_files(&sibling, &written.sums)?;
        sibling.shutdown()?;
        end(&back_end)?;
        end(&proxy.process)?;
        check_image(lab, &image, &written)
    });
}

#[test]
fn the_disk_keeps_its_files_when_the_sibling_or_the_back_end_is_replaced() {
    test("vfio-user-again", |lab| {
        let image = lab.run.image("disk.img", DISK_SIZE)?;
        let proxy = Proxy::start(lab)?;
        let back_end = start(lab, &proxy, &image)?;
        let killed = proxy.sibling(lab, "killed", &lab.machine.new_qemu)?;
        let written = write_files(&killed)?;
        killed.kill()?;
        let next = proxy.sibling(lab, "next", &lab.machine.old_qemu)?;
        check_files(&next, &written.sums)?;
        next.shutdown()?;
        end(&back_end)?;

        let back_end = start(lab, &proxy, &image)?;
        let last = proxy.sibling(lab, "last", &lab.machine.old_qemu)?;
        check_files(&last, &written.sums)?;
        last.shutdown()?;
        end(&back_end)?;
        end(&proxy.process)?;
        check_image(lab, &image, &written)
    });
}

fn start(lab: &Lab, proxy: &Proxy, image: &Path) -> Result<Process> {
    let function = format!("vfio-user:{}", proxy.vfio_user.display());
    block(lab, &["--pci", &function], image)
}
