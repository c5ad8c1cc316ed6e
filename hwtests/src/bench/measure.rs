//! Measures one peer (a compared program) once, with one workload.

use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::load::{Load, Outcome};
use super::local;
use super::peer::Served;
use super::plan::{Options, Workload};
use super::sample::Sample;
use super::usage::{Usage, busy, children_cpu};

/// Runs a workload on a peer once, and returns the results.
pub fn measure(served: &Served, workload: &Workload, options: &Options) -> Result<Sample> {
    let before = Moment::now()?;
    let mut sample = match &served.socket {
        Some(_) => vhost_user(served, workload, options)?,
        None => local::run(served, workload, options)?,
    };
    sample.foreign = Moment::now()?.foreign(&before);
    Ok(sample)
}

fn vhost_user(served: &Served, workload: &Workload, options: &Options) -> Result<Sample> {
    let mut load = load(served, workload)?;
    load.run(options.warm_up)?;
    let before = Usage::of(&served.pids())?;
    let outcome = load.run(options.time)?;
    let used = Usage::of(&served.pids())?.since(before);
    Ok(sample(outcome, used))
}

/// Connects a front-end to a peer, and prepares the load of a workload for this front-end.
pub fn load(served: &Served, workload: &Workload) -> Result<Load> {
    let socket = served.socket.as_ref().context("no socket")?;
    let front_end = &served.front_end;
    Load::new(
        front_end.connect(socket, workload.block, workload.depth)?,
        *workload,
    )
}

fn sample(mut outcome: Outcome, used: Usage) -> Sample {
    outcome.latencies.sort_unstable();
    let count = outcome.latencies.len().max(1) as f64;
    let percentile = |part: f64| {
        let at = (count * part) as usize;
        let value = outcome.latencies.get(at).or(outcome.latencies.last());
        f64::from(value.copied().unwrap_or_default()) / 1e3
    };
    Sample {
        iops: count / outcome.elapsed.as_secs_f64(),
        p50: percentile(0.5),
        p99: percentile(0.99),
        p999: percentile(0.999),
        cpu: used.cpu.as_secs_f64() * 1e6 / count,
        switches: used.switches as f64 / count,
        foreign: 0.0,
    }
}

/// Counters of CPU time at one moment. The difference between two moments shows the share of CPU
/// time that other processes used.
struct Moment {
    time: Instant,
    busy: Duration,
    ours: Duration,
}

impl Moment {
    fn now() -> Result<Self> {
        Ok(Self {
            time: Instant::now(),
            busy: busy()?,
            ours: Usage::of(&[std::process::id()])?.cpu + children_cpu()?,
        })
    }

    fn foreign(&self, before: &Self) -> f64 {
        let processors = available_parallelism().map_or(1, usize::from) as f64;
        let all = (self.time - before.time).as_secs_f64() * processors;
        let busy = self.busy.saturating_sub(before.busy);
        let foreign = busy.saturating_sub(self.ours.saturating_sub(before.ours));
        foreign.as_secs_f64() / all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_come_from_sorted_latencies() {
        let outcome = Outcome {
            elapsed: Duration::from_secs(2),
            latencies: (0..1000).rev().map(|n| n * 1000).collect(),
        };
        let used = Usage {
            cpu: Duration::from_millis(3),
            switches: 500,
        };
        let sample = sample(outcome, used);
        assert_eq!((sample.iops, sample.switches), (500.0, 0.5));
        assert!((sample.cpu - 3.0).abs() < 1e-9);
        assert_eq!((sample.p50, sample.p99, sample.p999), (500.0, 990.0, 999.0));
    }
}
