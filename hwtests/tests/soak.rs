//! Many fio jobs write through many queues for some time, and verify the data that they wrote.
//!
//! A normal run takes ten seconds for each cache mode. To run for five minutes in each mode, use
//! `cargo test -p hwtests --test soak -- --ignored --nocapture`.

use std::time::Duration;

use hwtests::scenario::{MEMORY, block, end};
use hwtests::vm::{Memory, VmBuilder};
use hwtests::workload::DISK;
use hwtests::{Lab, Result, ensure, test};

/// The number of processors of the guest, and the number of queues of its disk.
const QUEUES: u16 = 4;

/// The number of fio jobs that write at the same time.
const JOBS: u64 = 16;

/// The size of each job's part of the disk, in bytes.
const SIZE: u64 = 8 << 20;

/// The time limit for a run to end after its planned time.
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
    // With verify_backlog, each job reads its blocks back soon after it has written them.
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
    ensure!(report.contains("READ:"), "fio verified nothing: {report}");
    sibling.shutdown()?;
    end(&back_end)
}

#[test]
fn written_data_is_read_back_past_the_page_cache() {
    test("soak", |lab| soak(lab, "none", 10));
}

#[test]
fn written_data_is_read_back_through_the_page_cache() {
    test("soak", |lab| soak(lab, "writeback", 10));
}

#[test]
#[ignore = "takes five minutes"]
fn written_data_is_read_back_for_five_minutes_past_the_page_cache() {
    test("soak", |lab| soak(lab, "none", 300));
}

#[test]
#[ignore = "takes five minutes"]
fn written_data_is_read_back_for_five_minutes_through_the_page_cache() {
    test("soak", |lab| soak(lab, "writeback", 300));
}
