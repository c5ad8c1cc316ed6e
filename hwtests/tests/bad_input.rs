//! The error messages of `vvu-block` and `vvu-proxy` for input that they cannot use.

use std::time::Duration;

use hwtests::binaries;
use hwtests::process::Process;
use hwtests::scenario::{BDF, DISK_SIZE, Proxy, end};
use hwtests::tree::Program;
use hwtests::vm::{Iommu, Memory, Vm, VmBuilder};
use hwtests::{Lab, Result, ensure, test};

/// The time limit for a program to print an error.
const PATIENCE: Duration = Duration::from_secs(30);

/// The PCI address of a function in the test VMs that is not a VVU device.
const OTHER: &str = "0000:00:11.0";

#[test]
fn the_error_explains_why_a_function_cannot_be_driven() {
    test("bad-function", |lab| {
        let proxy = Proxy::start(lab)?;
        let vm = vm(lab, &proxy, Iommu::Remapping)?;
        let commands = "echo vfio-pci > /sys/bus/pci/devices/0000:00:10.0/driver_override";
        refuses(&vm, BDF, &["bound to virtio-pci", commands])?;
        refuses(
            &vm,
            OTHER,
            &["not a virtio-vhost-user device but", "1af4:1044", "RNG"],
        )?;
        bind(&vm, BDF)?;
        let holder = vm.spawn(&format!("exec sleep 60 < /dev/vfio/$({})", group(BDF)))?;
        vm.check(&format!(
            "until ls -l /proc/[0-9]*/fd | grep -q /dev/vfio/$({}); do :; done",
            group(BDF)
        ))?;
        refuses(&vm, BDF, &["in use by another process"])?;
        holder.terminate(Duration::from_secs(10))?;
        vm.shutdown()?;
        end(&proxy.process)
    });
}

#[test]
fn the_error_explains_that_a_vm_has_no_iommu() {
    test("no-iommu", |lab| {
        let proxy = Proxy::start(lab)?;
        let vm = vm(lab, &proxy, Iommu::None)?;
        refuses(&vm, BDF, &["no IOMMU group", "-device intel-iommu"])?;
        vm.shutdown()?;
        end(&proxy.process)
    });
}

#[test]
fn the_error_explains_that_an_iommu_does_not_remap_interrupts() {
    test("no-remapping", |lab| {
        let proxy = Proxy::start(lab)?;
        let vm = vm(lab, &proxy, Iommu::WithoutRemapping)?;
        bind(&vm, BDF)?;
        refuses(&vm, BDF, &["does not remap interrupts", "intremap=on"])?;
        vm.shutdown()?;
        end(&proxy.process)
    });
}

#[test]
fn the_proxy_explains_that_memory_is_not_in_its_file() {
    test("other-memory", |lab| {
        let proxy = Proxy::start(lab)?;
        let image = lab.run.image("disk.img", DISK_SIZE)?;
        let function = format!("vfio-user:{}", proxy.vfio_user.display());
        let back_end = hwtests::scenario::block(lab, &["--pci", &function], &image)?;
        let wrong = bare_sibling(lab, &proxy, "memory-backend-memfd,id=ram,size=64M,share=on")?;
        let option = format!("mem-path={}", proxy.memory.display());
        let line = proxy.process.wait_line(&option, PATIENCE)?;
        ensure!(line.contains("share=on"), "the line lacks share=on: {line}");
        wrong.kill()?;
        end(&back_end)?;
        end(&proxy.process)
    });
}

#[test]
fn a_hint_explains_that_memory_may_not_be_shared() {
    test("private-memory", |lab| {
        let proxy = Proxy::start(lab)?;
        let image = lab.run.image("disk.img", DISK_SIZE)?;
        let function = format!("vfio-user:{}", proxy.vfio_user.display());
        let back_end = hwtests::scenario::block(lab, &["--pci", &function], &image)?;
        // Without share=on, QEMU passes the file of its memory to the proxy, but maps the file
        // privately. So the firmware writes its rings and requests to a private copy of the file.
        let file = format!(
            "memory-backend-file,id=ram,size=64M,mem-path={}",
            proxy.memory.display()
        );
        let private = bare_sibling(lab, &proxy, &file)?;
        let line = back_end.wait_line("its ring is empty", PATIENCE)?;
        ensure!(line.contains("share=on"), "the line lacks share=on: {line}");
        private.kill()?;
        end(&back_end)?;
        end(&proxy.process)
    });
}

/// Starts a QEMU with the memory object `memory`. The guest needs no operating system, because its
/// firmware already starts the disk.
fn bare_sibling(lab: &Lab, proxy: &Proxy, memory: &str) -> Result<Process> {
    let socket = proxy.vhost_user.display();
    let mut command = lab.machine.old_qemu.command();
    command.args(["-nodefaults", "-display", "none", "-m", "64M"]);
    command.args([
        "-machine",
        "q35,accel=tcg,memory-backend=ram",
        "-object",
        memory,
    ]);
    command
        .arg("-chardev")
        .arg(format!("socket,id=vu,path={socket}"));
    command.args(["-device", "vhost-user-blk-pci,chardev=vu,num-queues=1"]);
    Process::spawn("wrong.qemu", &mut command, lab.run.path())
}

fn vm(lab: &Lab, proxy: &Proxy, iommu: Iommu) -> Result<Vm> {
    VmBuilder::new(lab, "device")
        .qemu(&lab.machine.new_qemu)
        .memory(Memory::Memfd, 512)
        .iommu(iommu)
        .vfio_user(&proxy.vfio_user, 0x10)
        .arg("-device")
        .arg("virtio-rng-pci,addr=11.0,disable-legacy=on")
        .program(Program::host(&binaries::build("vvu-block", "vvu-block")?)?)
        .start()
}

/// Checks that `vvu-block` exits with 1 and prints a single line that contains all of `words`.
fn refuses(vm: &Vm, function: &str, words: &[&str]) -> Result<()> {
    vm.check("truncate -s 1M /tmp/disk.img")?;
    let output = vm.run(&format!("vvu-block --pci {function} /tmp/disk.img"))?;
    let text = output.error_text();
    ensure!(
        output.status == 1,
        "vvu-block exits with {}: {text}",
        output.status
    );
    ensure!(
        text.trim_end().lines().count() == 1,
        "vvu-block prints more than one line: {text}"
    );
    for word in words {
        ensure!(text.contains(word), "the message lacks {word:?}: {text}");
    }
    Ok(())
}

fn bind(vm: &Vm, function: &str) -> Result<()> {
    vm.check(&format!(
        "set -e
        cd /sys/bus/pci/devices/{function}
        echo vfio-pci > driver_override
        if [ -e driver ]; then echo {function} > driver/unbind; fi
        echo {function} > /sys/bus/pci/drivers/vfio-pci/bind"
    ))?;
    Ok(())
}

/// A shell command that prints the IOMMU group of a PCI function.
fn group(function: &str) -> String {
    format!("basename $(readlink /sys/bus/pci/devices/{function}/iommu_group)")
}
