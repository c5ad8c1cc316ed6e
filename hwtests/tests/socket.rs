//! `vvu-block --socket-path`: a sibling VM's disk over a Unix socket.

use std::path::PathBuf;

use hwtests::process::Process;
use hwtests::qemu::Qemu;
use hwtests::scenario::{DISK_SIZE, block, end, sibling};
use hwtests::workload::{check_files, check_image, fio_verify, write_files};
use hwtests::{Lab, Result, ensure, test};

#[test]
fn an_old_qemu_uses_the_disk() {
    test("socket-old", |lab| use_disk(lab, &lab.machine.old_qemu));
}

#[test]
fn a_new_qemu_uses_the_disk() {
    test("socket-new", |lab| use_disk(lab, &lab.machine.new_qemu));
}

#[test]
fn front_ends_come_and_go() {
    test("socket-again", |lab| {
        let (image, socket, back_end) = start(lab)?;
        let memory = lab.run.memory("sibling");
        let first = sibling(lab, "first", &lab.machine.old_qemu, &socket, &memory)?;
        let written = write_files(&first)?;
        first.kill()?;
        let second = sibling(lab, "second", &lab.machine.new_qemu, &socket, &memory)?;
        check_files(&second, &written.sums)?;
        fio_verify(&second)?;
        second.shutdown()?;
        end(&back_end)?;
        check_image(lab, &image, &written)
    });
}

#[test]
fn sigterm_ends_it_while_a_sibling_is_connected() {
    test("socket-term", |lab| {
        let (_, socket, back_end) = start(lab)?;
        let memory = lab.run.memory("sibling");
        let sibling = sibling(lab, "sibling", &lab.machine.old_qemu, &socket, &memory)?;
        end(&back_end)?;
        ensure!(!socket.exists(), "vvu-block leaves its socket behind");
        sibling.kill()
    });
}

fn use_disk(lab: &Lab, qemu: &Qemu) -> Result<()> {
    let (image, socket, back_end) = start(lab)?;
    let sibling = sibling(lab, "sibling", qemu, &socket, &lab.run.memory("sibling"))?;
    let written = write_files(&sibling)?;
    fio_verify(&sibling)?;
    sibling.reboot()?;
    check_files(&sibling, &written.sums)?;
    sibling.shutdown()?;
    end(&back_end)?;
    check_image(lab, &image, &written)
}

fn start(lab: &Lab) -> Result<(PathBuf, PathBuf, Process)> {
    let image = lab.run.image("disk.img", DISK_SIZE)?;
    let socket = lab.run.file("vu.sock");
    let back_end = block(lab, &["--socket-path", &socket.to_string_lossy()], &image)?;
    Ok((image, socket, back_end))
}
