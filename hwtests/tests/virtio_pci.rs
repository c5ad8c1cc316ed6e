//! `vvu-block --virtio-pci-socket` serves an ordinary virtio disk to a guest under QEMU.

use std::path::{Path, PathBuf};

use hwtests::process::Process;
use hwtests::scenario::{DISK_SIZE, MEMORY, block, end};
use hwtests::vm::{COMMAND, Iommu, Memory, Vm, VmBuilder};
use hwtests::workload::{
    DISK, check_files, check_image, fio_verify, has_packed_rings, write_files,
};
use hwtests::{Lab, Result, ensure, test};

/// The number of the PCI slot of the function in a guest.
const SLOT: u8 = 0x10;
const BDF: &str = "0000:00:10.0";

#[test]
fn a_guest_uses_the_disk_and_reboots() {
    test("pci", |lab| {
        let disk = Disk::start(lab, &["--serial", "pci-disk"])?;
        use_disk(lab, &disk, disk.guest(lab, "guest")?)
    });
}

#[test]
fn the_disk_works_behind_an_iommu() {
    test("pci-iommu", |lab| {
        let disk = Disk::start(lab, &["--serial", "pci-disk"])?;
        let guest = behind_iommu(disk.guest(lab, "guest")?);
        use_disk(lab, &disk, guest.kernel_argument("iommu.passthrough=0"))
    });
}

#[test]
fn the_disk_works_without_message_signaled_interrupts() {
    test("pci-intx", |lab| {
        let disk = Disk::start(lab, &[])?;
        let guest = disk.guest(lab, "guest")?.kernel_argument("pci=nomsi");
        let guest = guest.start()?;
        let written = write_files(&guest)?;
        fio_verify(&guest)?;
        let device = format!("basename /sys/bus/pci/devices/{BDF}/virtio*");
        let line = guest.check(&format!("grep IO-APIC.*$({device}) /proc/interrupts"))?;
        ensure!(!line.contains("MSI"), "the guest uses MSI: {line}");
        guest.shutdown()?;
        end(&disk.process)?;
        check_image(lab, &disk.image, &written)
    });
}

#[test]
fn vvu_block_explains_that_memory_has_to_be_shared() {
    test("pci-not-shared", |lab| {
        let disk = Disk::start(lab, &[])?;
        let device = serde_json::json!({
            "driver": "vfio-user-pci",
            "socket": { "type": "unix", "path": disk.socket.to_string_lossy() },
        });
        let file = lab.run.memory("private");
        let private = format!(
            "memory-backend-file,id=ram,size=64M,mem-path={}",
            file.display()
        );
        for (memory, line) in [
            // QEMU maps this memory without a file, so QEMU cannot share the memory with
            // `vvu-block`.
            ("memory-backend-ram,id=ram,size=64M", "are not in memory"),
            // QEMU passes the file of this memory to `vvu-block`, but the firmware writes to a
            // private copy of its pages.
            (&private, "its ring is empty"),
        ] {
            // The guest needs no operating system, because the firmware already uses the disk.
            let mut qemu = lab.machine.new_qemu.command();
            qemu.args(["-nodefaults", "-display", "none", "-object", memory])
                .args(["-machine", "q35,accel=tcg,memory-backend=ram"])
                .args(["-m", "64M", "-device", &device.to_string()]);
            let qemu = Process::spawn("wrong.qemu", &mut qemu, lab.run.path())?;
            let line = disk.process.wait_line(line, COMMAND)?;
            ensure!(line.contains("share=on"), "the line lacks share=on: {line}");
            qemu.kill()?;
        }
        end(&disk.process)
    });
}

#[test]
fn a_read_only_disk_is_not_written() {
    test("pci-read-only", |lab| {
        let writable = Disk::start(lab, &[])?;
        let guest = writable.guest(lab, "writer")?.start()?;
        let written = write_files(&guest)?;
        guest.shutdown()?;
        end(&writable.process)?;
        let disk = Disk::serve(lab, writable.image.clone(), &["--read-only"])?;
        let guest = disk.guest(lab, "reader")?.start()?;
        ensure!(guest.check("cat /sys/block/vda/ro")?.trim() == "1");
        let write = guest.run(&format!(
            "dd if=/dev/zero of={DISK} bs=512 count=1 oflag=direct"
        ))?;
        ensure!(write.status != 0, "the guest could write to the disk");
        guest.check(&format!(
            "mkdir /mnt; mount -t ext4 -o ro,noload {DISK} /mnt; umount /mnt"
        ))?;
        guest.shutdown()?;
        end(&disk.process)?;
        check_image(lab, &disk.image, &written)
    });
}

#[test]
fn the_disk_works_after_its_driver_or_function_is_removed_under_load() {
    test("pci-rebind", |lab| {
        let disk = Disk::start(lab, &[])?;
        let guest = behind_iommu(disk.guest(lab, "guest")?).start()?;
        let written = write_files(&guest)?;
        for round in ["unbind", "remove", "unbind", "remove"] {
            let load = load(&guest)?;
            guest.check(&remove_and_add(round))?;
            load.wait(COMMAND)?;
        }
        check_files(&guest, &written.sums)?;
        fio_verify(&guest)?;
        guest.shutdown()?;
        end(&disk.process)?;
        check_image(lab, &disk.image, &written)
    });
}

#[test]
fn the_next_guest_finds_the_files_of_one_that_was_killed() {
    test("pci-killed", |lab| {
        let disk = Disk::start(lab, &[])?;
        let killed = disk.guest(lab, "killed")?.start()?;
        let written = write_files(&killed)?;
        load(&killed)?;
        killed.kill()?;
        let next = behind_iommu(disk.guest(lab, "next")?).start()?;
        check_files(&next, &written.sums)?;
        load(&next)?;
        next.kill()?;
        let last = disk.guest(lab, "last")?.start()?;
        check_files(&last, &written.sums)?;
        last.shutdown()?;
        end(&disk.process)?;
        check_image(lab, &disk.image, &written)
    });
}

/// Adds an IOMMU for all devices. The kernel checks that the timer's interrupt arrives through the
/// IOMMU, and panics if the interrupt is late. The interrupt can be late on a busy machine, so the
/// check is switched off.
fn behind_iommu(guest: VmBuilder<'_>) -> VmBuilder<'_> {
    let guest = guest.iommu(Iommu::Remapping);
    guest.kernel_argument("no_timer_check")
}

/// Starts a load that writes to a part of the disk after the file system, until a write fails. The
/// load uses a separate device node. With the node in /dev, dd would create a regular file as soon
/// as the kernel has removed the node. Then the kernel could not create the node again.
fn load(guest: &Vm) -> Result<hwtests::guest::GuestProcess> {
    let load = guest.spawn(
        "rm -f /load
        mknod /load b $(tr : ' ' < /sys/block/vda/dev)
        while dd if=/dev/zero of=/load bs=64k seek=1024 count=64 oflag=direct; do :; done 2>&1",
    )?;
    load.wait_line("records out", COMMAND)?;
    Ok(load)
}

/// Returns a shell script. If `how` is `unbind`, the script unbinds the driver from the PCI
/// function, and binds the driver again. If `how` is `remove`, the script removes the PCI function,
/// and adds it again.
fn remove_and_add(how: &str) -> String {
    let back = format!("until [ -b {DISK} ]; do :; done");
    match how {
        "unbind" => format!(
            "set -e
            cd /sys/bus/pci/drivers/virtio-pci
            echo {BDF} > unbind
            echo {BDF} > bind
            {back}"
        ),
        _ => format!(
            "set -e
            echo 1 > /sys/bus/pci/devices/{BDF}/remove
            [ ! -e /sys/bus/pci/devices/{BDF} ]
            echo 1 > /sys/bus/pci/rescan
            {back}"
        ),
    }
}

fn use_disk(lab: &Lab, disk: &Disk, guest: VmBuilder<'_>) -> Result<()> {
    let guest = guest.start()?;
    let seen = guest.check("cd /sys/block/vda; cat serial; echo; ls mq | wc -l; cat ro")?;
    let seen: Vec<_> = seen.split_whitespace().collect();
    ensure!(seen == ["pci-disk", "2", "0"], "the guest sees {seen:?}");
    let interrupts = guest.check("grep -c virtio.-req /proc/interrupts")?;
    ensure!(
        interrupts.trim() == "2",
        "{interrupts} queues have interrupts"
    );
    ensure!(has_packed_rings(&guest)?, "the rings are not packed");
    let written = write_files(&guest)?;
    fio_verify(&guest)?;
    guest.reboot()?;
    check_files(&guest, &written.sums)?;
    guest.shutdown()?;
    end(&disk.process)?;
    check_image(lab, &disk.image, &written)
}

/// A disk that `vvu-block` serves.
struct Disk {
    process: Process,
    socket: PathBuf,
    image: PathBuf,
}

impl Disk {
    fn start(lab: &Lab, options: &[&str]) -> Result<Self> {
        let image = lab.run.image("disk.img", DISK_SIZE)?;
        Self::serve(lab, image, options)
    }

    fn serve(lab: &Lab, image: PathBuf, options: &[&str]) -> Result<Self> {
        let socket = lab.run.file("blk0.sock");
        let path = socket.to_string_lossy();
        let mut all = vec!["--virtio-pci-socket", &path];
        all.extend(options);
        Ok(Self {
            process: block(lab, &all, &image)?,
            socket: Path::new(&*path).to_owned(),
            image,
        })
    }

    /// Prepares a guest with only this disk.
    fn guest<'a>(&self, lab: &'a Lab, name: &str) -> Result<VmBuilder<'a>> {
        let mut guest = VmBuilder::new(lab, name)
            .qemu(&lab.machine.new_qemu)
            .cpus(2)
            .memory(Memory::Memfd, MEMORY)
            .vfio_user(&self.socket, SLOT);
        for tool in ["mke2fs", "fio"] {
            guest = guest.program(lab.machine.program(tool)?);
        }
        Ok(guest)
    }
}
