//! Measures in a guest the speed of a disk that has speed limits.

use hwtests::scenario::{block, end, sibling};
use hwtests::vm::Vm;
use hwtests::workload::{DISK, fio};
use hwtests::{Lab, Result, ensure, test};

const MIB: f64 = (1 << 20) as f64;

/// The limit of requests per second.
const IOPS: f64 = 400.0;

/// The limit of bytes written per second.
const BPS: f64 = 4.0 * MIB;

/// Runs fio, and returns one number for each of its jobs. The number is the field `value` in the
/// report on `direction` (`read` or `write`).
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

/// Checks that `value` differs by less than 10 % from `expected`.
fn near(name: &str, value: f64, expected: f64) -> Result<()> {
    println!("{name}: {value:.1}, expected {expected:.1}");
    ensure!(
        (value / expected - 1.0).abs() < 0.1,
        "{name}: {value:.1}, expected {expected:.1}"
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

    // Each processor has its own queue. One queue has up to 32 requests in flight, and the other
    // queue has one request in flight. The two queues should nevertheless be equally fast.
    let jobs = "--rw=randread --bs=4k --name=full --cpus_allowed=0 --iodepth=32 \
                --name=single --cpus_allowed=1 --iodepth=1";
    let iops = run(&sibling, jobs, "read", "iops")?;
    near("reads per second", iops.iter().sum(), IOPS)?;
    for share in iops {
        near("reads per second of one queue", share, IOPS / 2.0)?;
    }

    let jobs = "--rw=write --bs=256k --name=large --iodepth=4";
    let bytes = run(&sibling, jobs, "write", "bw_bytes")?;
    near("bytes written per second", bytes.iter().sum(), BPS)?;
    sibling.shutdown()?;
    end(&back_end)
}

#[test]
fn a_guest_reaches_the_limits_and_its_queues_share_them() {
    test("limits", limited);
}
