//! How fast a guest finds a disk that has limits.

use hwtests::scenario::{block, end, sibling};
use hwtests::vm::Vm;
use hwtests::workload::{DISK, fio};
use hwtests::{Lab, Result, ensure, test};

const MIB: f64 = (1 << 20) as f64;

/// Requests a second.
const IOPS: f64 = 400.0;

/// Bytes written a second.
const BPS: f64 = 4.0 * MIB;

/// What each job achieves with a disk of which all is asked: one value a job.
fn run(sibling: &Vm, jobs: &str, direction: &str, value: &str) -> Result<Vec<f64>> {
    let report = fio(
        sibling,
        &format!(
            "--filename={DISK} --direct=1 --ioengine=libaio --time_based --runtime=6 \
             --ramp_time=2 {jobs}"
        ),
    )?;
    let jobs = report["jobs"].as_array().into_iter().flatten();
    let values = jobs.filter_map(|job| job[direction][value].as_f64());
    Ok(values.collect())
}

fn near(what: &str, value: f64, expected: f64) -> Result<()> {
    println!("{what}: {value:.1}, {expected:.1} allowed");
    ensure!(
        (value / expected - 1.0).abs() < 0.1,
        "{what}: {value:.1}, not {expected:.1}"
    );
    Ok(())
}

fn limited(lab: &Lab) -> Result<()> {
    let image = lab.run.image("disk.img", 128 << 20)?;
    let socket = lab.run.file("vu.sock");
    let text = socket.to_string_lossy().into_owned();
    let limits = format!("--iops={IOPS},burst=4");
    let limits = [&limits, "--bps-write=4M,burst=64K", "--socket-path", &text];
    let back_end = block(lab, &limits, &image)?;
    let memory = lab.run.memory("sibling");
    let sibling = sibling(lab, "sibling", &lab.machine.new_qemu, &socket, &memory)?;

    // A processor has its own queue: one is full all the time, in the other one request at a time.
    let jobs = "--rw=randread --bs=4k --name=full --cpus_allowed=0 --iodepth=32 \
                --name=single --cpus_allowed=1 --iodepth=1";
    let iops = run(&sibling, jobs, "read", "iops")?;
    near("reads a second", iops.iter().sum(), IOPS)?;
    for share in iops {
        near("reads of a queue a second", share, IOPS / 2.0)?;
    }

    let jobs = "--rw=write --bs=256k --name=large --iodepth=4";
    let bytes = run(&sibling, jobs, "write", "bw_bytes")?;
    near("bytes written a second", bytes.iter().sum(), BPS)?;
    sibling.shutdown()?;
    end(&back_end)
}

#[test]
fn a_guest_gets_what_is_allowed_and_queues_share_it() {
    test("limits", limited);
}
