//! A network block device in the device VM is served as the sibling VM's disk.

use hwtests::provision::nbd_server;
use hwtests::scenario::{DISK_SIZE, DeviceVm, Proxy, end};
use hwtests::vm::COMMAND;
use hwtests::workload::{DISK, check_files, check_image, fio_verify, write_files};
use hwtests::{Lab, Result, ensure, test};

const DEVICE: &str = "/dev/nbd0";

fn serve(lab: &Lab) -> Result<()> {
    let image = lab.run.image("disk.img", DISK_SIZE)?;
    let proxy = Proxy::start(lab)?;
    let vm = DeviceVm::builder(lab, &proxy, &image)?
        .module("nbd")
        .program(nbd_server()?)
        .start()?;
    vm.check("mkdir -p /var/lock")?;
    let options = "--format=raw --discard=unmap --cache=none";
    let server = vm.spawn(&format!(
        "exec /usr/bin/qemu-nbd --verbose {options} --connect={DEVICE} {DISK}"
    ))?;
    server.wait_line("is now connected", COMMAND)?;
    let device = DeviceVm::serve_disk(lab, vm, DEVICE)?;

    let sibling = proxy.sibling(lab, "sibling", &lab.machine.new_qemu)?;
    let size = sibling.check("cat /sys/block/vda/size")?;
    ensure!(size.trim() == (DISK_SIZE / 512).to_string(), "size {size}");
    let written = write_files(&sibling)?;
    fio_verify(&sibling)?;
    sibling.reboot()?;
    check_files(&sibling, &written.sums)?;
    sibling.shutdown()?;
    device.end()?;
    end(&proxy.process)?;
    check_image(lab, &image, &written)
}

#[test]
fn a_network_block_device_works_as_a_disk() {
    test("nbd", serve);
}
