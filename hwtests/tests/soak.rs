//! Many jobs write over many queues for a while, and find again what they wrote.
//!
//! For ten seconds with each cache mode; for five minutes with
//! `cargo test -p hwtests --test soak -- --ignored --nocapture`.

use std::time::Duration;

use hwtests::scenario::{MEMORY, block, end};
use hwtests::vm::{Memory, VmBuilder};
use hwtests::workload::DISK;
use hwtests::{Lab, Result, ensure, test};

/// Processors of the guest and queues of its disk.
const QUEUES: u16 = 4;

/// Jobs, and how much of the disk is each one's.
const JOBS: u64 = 16;
const SIZE: u64 = 8 << 20;

/// How much longer than planned it may take.
const PATIENCE: Duration = Duration::from_secs(240);

fn soak(lab: &Lab, cache: &str, seconds: u64) -> Result<()> {
    let image = lab.run.image("disk.img", JOBS * SIZE)?;
    let socket = lab.run.file("vu.sock");
    let text = socket.to_string_lossy().into_owned();
    let cache = format!("--cache={cache}");
    let back_end = block(lab, &["--socket-path", &text, &cache], &image)?;
    let sibling = VmBuilder::new(lab, "sibling")
        .cpus(QUEUES.into())
        .memory(Memory::File(lab.run.memory("sibling")), MEMORY)
        .vhost_user_blk(&socket, QUEUES)
        .program(lab.machine.program("fio")?)
        .start()?;
    let queues = sibling.check("ls /sys/block/vda/mq | wc -l")?;
    ensure!(queues.trim() == QUEUES.to_string(), "{queues} queues");
    // What was written is read back soon after, and all the time.
    let script = format!(
        "/usr/bin/fio --name=soak --filename={DISK} --direct=1 --ioengine=libaio --iodepth=8 \
         --numjobs={JOBS} --size={SIZE} --offset_increment={SIZE} --rw=randwrite \
         --bsrange=512-128k --verify=crc32c --verify_backlog=64 --verify_fatal=1 --fsync=200 \
         --time_based --runtime={seconds} --group_reporting"
    );
    let report = sibling.check_within(&script, Duration::from_secs(seconds) + PATIENCE)?;
    for name in ["err=", "READ:", "WRITE:"] {
        let line = report.lines().find(|line| line.contains(name));
        println!("{cache}: {}", line.unwrap_or_default().trim());
    }
    ensure!(report.contains("err= 0"), "{report}");
    ensure!(report.contains("READ:"), "nothing was verified: {report}");
    sibling.shutdown()?;
    end(&back_end)
}

#[test]
fn ten_seconds_past_the_page_cache() {
    test("soak", |lab| soak(lab, "none", 10));
}

#[test]
fn ten_seconds_in_the_page_cache() {
    test("soak", |lab| soak(lab, "writeback", 10));
}

#[test]
#[ignore = "takes five minutes"]
fn five_minutes_past_the_page_cache() {
    test("soak", |lab| soak(lab, "none", 300));
}

#[test]
#[ignore = "takes five minutes"]
fn five_minutes_in_the_page_cache() {
    test("soak", |lab| soak(lab, "writeback", 300));
}
