//! Tests the test harness itself, with programs of other projects.

use std::path::Path;
use std::time::Duration;

use hwtests::process::Process;
use hwtests::qemu::Qemu;
use hwtests::scenario::{BDF, DISK_SIZE, bind, sibling};
use hwtests::vm::{Iommu, Memory, VmBuilder};
use hwtests::workload::{check_files, check_image, fio_verify, write_files};
use hwtests::{Context, Lab, Result, ensure, test};
use rustix::process::Signal;

const LONG: Duration = Duration::from_secs(30);

#[test]
fn a_guest_runs_commands() {
    test("commands", |lab| {
        let vm = VmBuilder::new(lab, "guest").start()?;
        assert_eq!(vm.check("echo $((6 * 7))")?, "42\n");
        let output = vm.run("echo out; echo err >&2; exit 3")?;
        assert_eq!(output.text(), "out\n");
        assert_eq!(output.error_text(), "err\n");
        assert_eq!(output.status, 3);
        assert_eq!(vm.run("kill -9 $$")?.status, 137);

        let big = vm.check("head -c 3000000 /dev/zero | tr '\\0' x")?;
        assert!(big.len() == 3_000_000 && big.bytes().all(|byte| byte == b'x'));

        let background = vm.spawn("trap 'echo bye; exit 4' TERM; echo up; while :; do :; done")?;
        assert_eq!(background.wait_line("up", LONG)?, "up");
        assert_eq!(vm.check("echo meanwhile")?, "meanwhile\n");
        let output = background.terminate(LONG)?;
        assert_eq!((output.status, output.text().as_str()), (4, "up\nbye\n"));
        vm.shutdown()
    });
}

#[test]
fn a_guest_reboots_and_powers_off() {
    test("reboot", |lab| {
        let vm = VmBuilder::new(lab, "guest").start()?;
        let before = vm.check("touch /tmp/x; cat /proc/sys/kernel/random/boot_id")?;
        let lost = vm.spawn("echo up; sleep 1000")?;
        lost.wait_line("up", LONG)?;
        vm.reboot()?;
        let error = lost.wait(LONG).unwrap_err();
        assert!(format!("{error:#}").contains("rebooted"), "{error:#}");
        assert_ne!(vm.check("cat /proc/sys/kernel/random/boot_id")?, before);
        assert_eq!(vm.run("test -e /tmp/x")?.status, 1);
        vm.kill()?;
        let vm = VmBuilder::new(lab, "guest")
            .qemu(&lab.machine.new_qemu)
            .start()?;
        let running = vm.spawn("sleep 1000")?;
        vm.shutdown()?;
        assert!(running.signal(Signal::TERM).is_err() || running.wait(LONG).is_err());
        Ok(())
    });
}

#[test]
fn the_error_explains_a_hanging_command_and_a_failing_qemu() {
    test("errors", |lab| {
        let vm = VmBuilder::new(lab, "guest").start()?;
        let error = vm
            .run_within("sleep 1000", Duration::from_millis(200))
            .unwrap_err();
        assert!(
            format!("{error:#}").contains("guest.console.log"),
            "{error:#}"
        );
        drop(vm);
        let error = VmBuilder::new(lab, "bad")
            .arg("-no-such-option")
            .start()
            .unwrap_err();
        assert!(
            format!("{error:#}").contains("-no-such-option"),
            "{error:#}"
        );
        Ok(())
    });
}

#[test]
fn a_qemu_without_vfio_user_is_refused() {
    test("old-qemu", |lab| {
        lab.machine.new_qemu.need_vfio_user()?;
        let error = lab
            .machine
            .old_qemu
            .need_vfio_user()
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no vfio-user-pci") && error.contains("QEMU 10.1 or newer"),
            "{error}"
        );
        Ok(())
    });
}

#[test]
fn a_device_vm_binds_a_function_to_vfio_pci() {
    test("iommu", |lab| {
        let image = lab.run.image("disk.img", 1 << 20)?;
        let vm = VmBuilder::new(lab, "device")
            .qemu(&lab.machine.new_qemu)
            .memory(Memory::Memfd, 512)
            .iommu(Iommu::Remapping)
            .disk(&image)
            .arg("-device")
            .arg("virtio-rng-pci,addr=10.0")
            .start()?;
        bind(&vm)?;
        let members = vm.check(&format!(
            "ls /sys/bus/pci/devices/{BDF}/iommu_group/devices"
        ))?;
        assert_eq!(
            members.trim(),
            BDF,
            "the function is not alone in its IOMMU group"
        );

        vm.check("echo written | dd of=/dev/vda bs=512 conv=fsync,sync")?;
        vm.shutdown()?;
        assert!(std::fs::read(&image)?.starts_with(b"written\n"));
        Ok(())
    });
}

#[test]
fn the_error_for_a_missing_vfio_user_server_names_its_socket() {
    test("no-server", |lab| {
        let socket = lab.run.file("absent.sock");
        let vm = VmBuilder::new(lab, "device")
            .qemu(&lab.machine.new_qemu)
            .iommu(Iommu::Remapping);
        let error = vm.vfio_user(&socket, 0x10).start().unwrap_err();
        assert!(format!("{error:#}").contains("absent.sock"), "{error:#}");
        Ok(())
    });
}

#[test]
fn an_old_qemu_uses_a_back_end_of_qemu() {
    test("old-sibling", |lab| {
        foreign_back_end(lab, &lab.machine.old_qemu)
    });
}

#[test]
fn a_new_qemu_uses_a_back_end_of_qemu() {
    test("new-sibling", |lab| {
        foreign_back_end(lab, &lab.machine.new_qemu)
    });
}

/// Uses a disk in a sibling VM as other tests do, but with QEMU's own vhost-user-blk back-end.
fn foreign_back_end(lab: &Lab, qemu: &Qemu) -> Result<()> {
    let image = lab.run.image("disk.img", DISK_SIZE)?;
    let socket = lab.run.file("vu.sock");
    let back_end = storage_daemon(lab, &image, &socket)?;
    let memory = lab.run.memory("sibling");
    let vm = sibling(lab, "sibling", qemu, &socket, &memory)?;
    let written = write_files(&vm)?;
    ensure!(
        written.files() == 76 && written.bytes > 12_000_000,
        "{written:?}"
    );
    fio_verify(&vm)?;
    vm.reboot()?;
    check_files(&vm, &written.sums)?;
    vm.shutdown()?;
    back_end.terminate(LONG)?;
    check_image(lab, &image, &written)?;

    let mut other = written.clone();
    other.sums.replace_range(
        0..1,
        if other.sums.starts_with('0') {
            "1"
        } else {
            "0"
        },
    );
    let error = check_image(lab, &image, &other)
        .err()
        .context("the check does not notice a wrong checksum")?;
    assert!(format!("{error:#}").contains("differ"), "{error:#}");
    Ok(())
}

fn storage_daemon(lab: &Lab, image: &Path, socket: &Path) -> Result<Process> {
    let ready = lab.run.file("storage.pid");
    let mut command = lab.machine.program("qemu-storage-daemon")?.command();
    command
        .arg("--blockdev")
        .arg(format!(
            "driver=file,node-name=file,filename={}",
            image.display()
        ))
        .arg("--export")
        .arg(format!(
            "type=vhost-user-blk,id=export,node-name=file,writable=on,num-queues=2,\
             addr.type=unix,addr.path={}",
            socket.display()
        ))
        .arg("--pidfile")
        .arg(&ready);
    let daemon = Process::spawn("storage-daemon", &mut command, lab.run.path())?;
    // qemu-storage-daemon prints nothing. It writes its pid file when its exports are ready.
    hwtests::process::wait_file(&ready, LONG).context("qemu-storage-daemon")?;
    Ok(daemon)
}
