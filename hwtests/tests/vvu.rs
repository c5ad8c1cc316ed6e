//! `vvu-block --pci` in a device VM serves a disk to a sibling VM through `vvu-proxy`.

use hwtests::qemu::Qemu;
use hwtests::scenario::{DISK_SIZE, DeviceVm, Proxy, end};
use hwtests::vm::COMMAND;
use hwtests::workload::{
    DISK, check_files, check_image, fio_verify, has_packed_rings, write_files,
};
use hwtests::{Lab, Result, ensure, test};

#[test]
fn an_old_sibling_uses_the_disk_and_reboots() {
    test("vvu-old", |lab| use_disk(lab, &lab.machine.old_qemu, false));
}

#[test]
fn a_new_sibling_uses_the_disk_with_packed_rings_and_reboots() {
    test("vvu-new", |lab| use_disk(lab, &lab.machine.new_qemu, true));
}

#[test]
fn the_disk_keeps_its_files_when_the_sibling_or_the_device_vm_restarts() {
    test("vvu-again", |lab| {
        let image = lab.run.image("disk.img", DISK_SIZE)?;
        let proxy = Proxy::start(lab)?;
        let device = DeviceVm::start(lab, &proxy, &image)?;

        let killed = proxy.sibling(lab, "killed", &lab.machine.old_qemu)?;
        let written = write_files(&killed)?;
        let busy = killed.spawn(&format!(
            "echo writing
            while :; do dd if=/dev/zero of={DISK} bs=64k seek=1024 count=256 oflag=direct; done"
        ))?;
        busy.wait_line("writing", COMMAND)?;
        killed.kill()?;

        let next = proxy.sibling(lab, "next", &lab.machine.new_qemu)?;
        check_files(&next, &written.sums)?;
        fio_verify(&next)?;
        next.shutdown()?;

        let device = device.reboot(lab)?;
        let last = proxy.sibling(lab, "last", &lab.machine.old_qemu)?;
        check_files(&last, &written.sums)?;
        last.shutdown()?;
        device.end()?;
        end(&proxy.process)?;
        check_image(lab, &image, &written)
    });
}

fn use_disk(lab: &Lab, qemu: &Qemu, packed: bool) -> Result<()> {
    let image = lab.run.image("disk.img", DISK_SIZE)?;
    let proxy = Proxy::start(lab)?;
    let device = DeviceVm::start(lab, &proxy, &image)?;
    let mut sibling = proxy.new_sibling(lab, "sibling", qemu)?;
    if packed {
        sibling = sibling.packed_rings();
    }
    let sibling = sibling.start()?;
    ensure!(has_packed_rings(&sibling)? == packed, "the rings' layout");
    let written = write_files(&sibling)?;
    fio_verify(&sibling)?;
    sibling.reboot()?;
    check_files(&sibling, &written.sums)?;
    fio_verify(&sibling)?;
    sibling.shutdown()?;
    device.end()?;
    end(&proxy.process)?;
    check_image(lab, &image, &written)
}
