//! `vvu-block --socket-path` serves a sibling VM's disk over a Unix socket.

use std::path::PathBuf;

use hwtests::bench::front_end::{FrontEnd, Kind};
use hwtests::process::Process;
use hwtests::qemu::Qemu;
use hwtests::scenario::{DISK_SIZE, block, end, new_sibling, sibling};
use hwtests::workload::{check_files, check_image, fio_verify, has_packed_rings, write_files};
use hwtests::{Context, Lab, Result, ensure, test};

#[test]
fn an_old_qemu_uses_the_disk() {
    test("socket-old", |lab| {
        use_disk(lab, &lab.machine.old_qemu, false)
    });
}

#[test]
fn a_new_qemu_uses_the_disk_with_packed_rings() {
    test("socket-new", |lab| {
        use_disk(lab, &lab.machine.new_qemu, true)
    });
}

#[test]
fn the_next_front_end_finds_the_files_of_one_that_was_killed() {
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
fn sigterm_ends_vvu_block_while_a_sibling_is_connected() {
    test("socket-term", |lab| {
        let (_, socket, back_end) = start(lab)?;
        let memory = lab.run.memory("sibling");
        let sibling = sibling(lab, "sibling", &lab.machine.old_qemu, &socket, &memory)?;
        end(&back_end)?;
        ensure!(!socket.exists(), "vvu-block does not remove its socket");
        sibling.kill()
    });
}

#[test]
fn a_driver_of_another_project_uses_packed_rings() {
    test("socket-packed", |lab| {
        let (image, socket, back_end) = start(lab)?;
        let mut disk = Kind::Packed.connect(&socket, BLOCK, SLOTS)?;
        // There are enough requests to wrap around the ring many times.
        for begin in (0..2000).step_by(SLOTS) {
            transfer(disk.as_mut(), true, begin)?;
        }
        for begin in (0..2000).step_by(SLOTS) {
            transfer(disk.as_mut(), false, begin)?;
        }
        drop(disk);
        end(&back_end)?;
        let image = std::fs::read(image)?;
        for (number, block) in (0..2000).zip(image.chunks(BLOCK)) {
            ensure!(block == contents(number), "block {number} differs");
        }
        Ok(())
    });
}

const BLOCK: usize = 4096;
const SLOTS: usize = 40;

/// The content that the test writes to a block.
fn contents(block: u64) -> Vec<u8> {
    let byte = |n: u64| (block * 7 + n % 251) as u8;
    (0..BLOCK as u64).map(byte).collect()
}

/// Writes a block from each slot's buffer, or reads a block into each slot's buffer and checks the
/// content. The first block has the number `begin`.
fn transfer(disk: &mut dyn FrontEnd, write: bool, begin: u64) -> Result<()> {
    let blocks = begin..begin + SLOTS as u64;
    for (slot, block) in blocks.clone().enumerate() {
        let buffer = disk.buffer(slot).context("no buffers")?;
        if write {
            buffer.copy_from_slice(&contents(block));
        } else {
            buffer.fill(0);
        }
        disk.submit(write, block, slot)?;
    }
    disk.kick()?;
    let mut ended = Vec::new();
    while ended.len() < SLOTS {
        disk.wait()?;
        disk.ended(&mut ended)?;
    }
    for (slot, block) in blocks.enumerate() {
        let found = disk.buffer(slot).context("no buffers")? == contents(block);
        ensure!(found, "block {block} differs");
    }
    Ok(())
}

fn use_disk(lab: &Lab, qemu: &Qemu, packed: bool) -> Result<()> {
    let (image, socket, back_end) = start(lab)?;
    let memory = lab.run.memory("sibling");
    let mut sibling = new_sibling(lab, "sibling", qemu, &socket, &memory)?;
    if packed {
        sibling = sibling.packed_rings();
    }
    let sibling = sibling.start()?;
    ensure!(has_packed_rings(&sibling)? == packed, "the rings' layout");
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
