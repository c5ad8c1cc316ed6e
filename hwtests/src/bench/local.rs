//! Measures fio with io_uring on the image itself, for comparison. There is no back-end.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::peer::Served;
use super::plan::{Medium, Options, Workload};
use super::sample::Sample;

/// Runs a workload with fio on the image itself.
pub fn run(served: &Served, workload: &Workload, options: &Options) -> Result<Sample> {
    let report = served.fio.output(arguments(served, workload, options))?;
    // fio may print other text before its JSON report.
    let json = report.find('{').map(|at| &report[at..]);
    let report = serde_json::from_str(json.unwrap_or_default()).context("fio's report")?;
    sample(&report, workload).context("fio's report lacks a number")
}

fn arguments(served: &Served, workload: &Workload, options: &Options) -> Vec<String> {
    let milliseconds = |time: Duration| format!("{}ms", time.as_millis());
    vec![
        "--name=local".into(),
        "--ioengine=io_uring".into(),
        "--output-format=json".into(),
        "--time_based".into(),
        format!("--filename={}", served.image.path().display()),
        format!(
            "--rw={}",
            if workload.write {
                "randwrite"
            } else {
                "randread"
            }
        ),
        format!("--bs={}", workload.block),
        format!("--iodepth={}", workload.depth),
        format!("--direct={}", u8::from(served.medium == Medium::Direct)),
        format!("--runtime={}", milliseconds(options.time)),
        format!("--ramp_time={}", milliseconds(options.warm_up)),
        // Without this option, fio drops the page cache of the file before it begins.
        "--invalidate=0".into(),
        // Without this option, fio records all offsets in a map, which costs time.
        "--norandommap".into(),
    ]
}

fn sample(report: &Value, workload: &Workload) -> Option<Sample> {
    let job = report["jobs"].get(0)?;
    let side = &job[if workload.write { "write" } else { "read" }];
    let requests = side["total_ios"].as_f64()?;
    let seconds = side["runtime"].as_f64()? / 1e3;
    let percent = job["usr_cpu"].as_f64()? + job["sys_cpu"].as_f64()?;
    let latency = |name| side["clat_ns"]["percentile"][name].as_f64();
    Some(Sample {
        iops: side["iops"].as_f64()?,
        p50: latency("50.000000")? / 1e3,
        p99: latency("99.000000")? / 1e3,
        p999: latency("99.900000")? / 1e3,
        cpu: percent / 100.0 * seconds * 1e6 / requests,
        switches: job["ctx"].as_f64()? / requests,
        foreign: 0.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plan::WORKLOADS;

    #[test]
    fn numbers_are_where_fio_has_them() {
        let percentiles = serde_json::json!({
            "50.000000": 2000, "99.000000": 3000, "99.900000": 4000
        });
        let read = serde_json::json!({
            "total_ios": 100, "runtime": 1000, "iops": 100.0,
            "clat_ns": { "percentile": percentiles }
        });
        let report = serde_json::json!({
            "jobs": [{ "read": read, "usr_cpu": 1.0, "sys_cpu": 2.0, "ctx": 50 }]
        });
        let sample = sample(&report, &WORKLOADS[0]).unwrap();
        assert_eq!((sample.p50, sample.p999, sample.switches), (2.0, 4.0, 0.5));
        assert!((sample.cpu - 300.0).abs() < 1e-6);
    }
}
