//! Compares two disks in a guest: the PCI function of `vvu-block`, and QEMU's own virtio-blk-pci.
//!
//! One emulated guest has both disks, with equal images. fio in the guest uses the two disks
//! alternately.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::Value;

use super::summary::median;
use super::syscalls;
use super::usage::{family, load_average};
use crate::lab::Lab;
use crate::process::Process;
use crate::progress;
use crate::provision::benchmark_tools;
use crate::scenario::{MEMORY, block, end};
use crate::vm::{COMMAND, Memory, Vm, VmBuilder};

const IMAGE_SIZE: usize = 256 << 20;
const SLOT: u8 = 0x10;
const CPUS: u32 = 2;

/// The names of the loads (kinds of requests), and fio's options for them.
const LOADS: [(&str, &str); 4] = [
    ("4k random read, QD1", "--rw=randread --bs=4k --iodepth=1"),
    ("4k random read, QD32", "--rw=randread --bs=4k --iodepth=32"),
    (
        "4k random write, QD32",
        "--rw=randwrite --bs=4k --iodepth=32",
    ),
    ("128k read, QD8", "--rw=read --bs=128k --iodepth=8"),
];

/// A disk in the guest.
struct Disk {
    /// The path of the disk's device node.
    node: String,
    /// The name of the disk's virtio device. The names of the disk's interrupts contain this name.
    device: String,
}

/// The results of one run of fio on one disk (a turn).
#[derive(Clone, Copy, Debug)]
struct Turn {
    iops: f64,
    /// The number of interrupts per request.
    interrupts: f64,
}

/// Compares the disks in five turns of two seconds each, or in three turns of one second each if
/// `quick` is set.
pub fn run(quick: bool) -> Result<()> {
    let strace = benchmark_tools()?.strace;
    let lab = Lab::open("bench-guest")?;
    let (turns, seconds) = if quick { (3, 1) } else { (5, 2) };
    let [ours, theirs] = ["ours.img", "qemu.img"].map(|name| lab.run.file(name));
    for image in [&ours, &theirs] {
        std::fs::write(image, vec![0x5a; IMAGE_SIZE]).context("cannot write an image")?;
    }
    let socket = lab.run.file("blk0.sock");
    let options = [
        "--virtio-pci-socket",
        &socket.to_string_lossy(),
        "--serial",
        "ours",
    ];
    let served = block(&lab, &options, &ours)?;
    let guest = VmBuilder::new(&lab, "guest")
        .qemu(&lab.machine.new_qemu)
        .cpus(CPUS)
        .memory(Memory::Memfd, MEMORY)
        .vfio_user(&socket, SLOT)
        .disk(&theirs)
        .program(lab.machine.program("fio")?)
        .start()?;
    let disks = disks(&guest)?;
    print!("{}", head(turns, seconds));
    for (name, load) in LOADS {
        let mut found: [Vec<Turn>; 2] = Default::default();
        for number in 1..=turns {
            progress(format!(
                "{name}: {number} of {turns}, load {}",
                load_average()
            ));
            for (disk, found) in disks.iter().zip(&mut found) {
                found.push(turn(&guest, disk, load, seconds)?.0);
            }
        }
        let counting = Counting::start(&served, &strace, &lab.run.file("calls"), &lab)?;
        let (_, requests) = turn(&guest, &disks[0], load, seconds)?;
        let messages = counting.end()? as f64 / requests;
        print!("{}", row(name, &found, messages));
    }
    guest.shutdown()?;
    end(&served)?;
    lab.run.discard()
}

/// Finds our disk and QEMU's disk in the guest, and returns them in this order.
fn disks(guest: &Vm) -> Result<[Disk; 2]> {
    let find = |condition: &str| {
        let script = format!(
            "for disk in /sys/block/vd*; do
                if [ \"$(cat $disk/serial)\" {condition} ours ]; then
                    echo /dev/${{disk##*/}} $(basename $(readlink -f $disk/device))
                fi
            done"
        );
        let line = guest.check(&script)?;
        let (node, device) = line.trim().split_once(' ').context("a disk is missing")?;
        Ok::<_, anyhow::Error>(Disk {
            node: node.to_owned(),
            device: device.to_owned(),
        })
    };
    Ok([find("=")?, find("!=")?])
}

/// Runs fio on a disk for some seconds. Returns the results and the number of requests.
fn turn(guest: &Vm, disk: &Disk, load: &str, seconds: u32) -> Result<(Turn, f64)> {
    let Disk { node, device } = disk;
    let script = format!(
        "interrupts() {{
            awk '/{device}-req/ {{ for (i = 2; i < 2 + {CPUS}; i++) sum += $i }}
                END {{ print sum }}' /proc/interrupts
        }}
        before=$(interrupts)
        /usr/bin/fio --name=load --filename={node} {load} --direct=1 --ioengine=libaio \
            --time_based --runtime={seconds} --output-format=json --output=/tmp/report || exit 1
        echo $(($(interrupts) - before))
        cat /tmp/report"
    );
    let said = guest.check_within(&script, COMMAND + Duration::from_secs(seconds.into()))?;
    let (interrupts, report) = said.split_once('\n').context("fio printed no report")?;
    let interrupts: f64 = interrupts
        .trim()
        .parse()
        .context("no number of interrupts")?;
    let report: Value = serde_json::from_str(report).context("cannot read fio's report")?;
    let sum = |what: &str| {
        let part = |way: &str| report["jobs"][0][way][what].as_f64().unwrap_or_default();
        part("read") + part("write")
    };
    let requests = sum("total_ios").max(1.0);
    let turn = Turn {
        iops: sum("iops"),
        interrupts: interrupts / requests,
    };
    Ok((turn, requests))
}

/// Counts the vfio-user messages that notify a queue. For each of these messages, the first thread
/// of the process that serves the disk makes one `write` to the queue's eventfd. So strace counts
/// the `write` calls of this thread.
struct Counting {
    strace: Process,
    table: std::path::PathBuf,
}

impl Counting {
    fn start(
        served: &Process,
        strace: &crate::tree::Program,
        table: &Path,
        lab: &Lab,
    ) -> Result<Self> {
        let pids = family(&[served.id()])?;
        Ok(Self {
            strace: syscalls::attach(&pids, &["-c"], strace, table, &lab.run)?,
            table: table.to_owned(),
        })
    }

    fn end(self) -> Result<u64> {
        self.strace.signal(Signal::INT);
        self.strace.wait(COMMAND)?;
        let table = std::fs::read_to_string(&self.table)?;
        Ok(syscalls::calls(&table, "write").unwrap_or_default())
    }
}

fn head(turns: usize, seconds: u32) -> String {
    format!(
        "{turns} turns of {seconds} s, medians (spread); load {}\n\n\
         | load | vvu-block IOPS | virtio-blk-pci IOPS | ratio | interrupts/IO, ours | QEMU's \
         | messages/IO, ours |\n|{}\n",
        load_average(),
        "---|".repeat(7)
    )
}

fn row(name: &str, [ours, theirs]: &[Vec<Turn>; 2], messages: f64) -> String {
    let all = |turns: &[Turn], get: fn(&Turn) -> f64| turns.iter().map(get).collect::<Vec<_>>();
    let mut text = format!("| {name} ");
    for turns in [ours, theirs] {
        let iops = all(turns, |turn| turn.iops);
        let range = iops.iter().copied().fold(0.0, f64::max)
            - iops.iter().copied().fold(f64::MAX, f64::min);
        let middle = median(iops);
        let _ = write!(text, "| {middle:.0} ({:.0} %) ", range / middle * 100.0);
    }
    let iops = |turns: &[Turn]| median(all(turns, |turn| turn.iops));
    let interrupts = |turns: &[Turn]| median(all(turns, |turn| turn.interrupts));
    let _ = writeln!(
        text,
        "| {:.2} | {:.2} | {:.2} | {messages:.2} |",
        iops(ours) / iops(theirs),
        interrupts(ours),
        interrupts(theirs),
    );
    text
}
