//! The benchmark: our back-end beside qemu-storage-daemon and the kernel's own limit.
//!
//! All are measured in turns (A B C A B C ...), so that what else the machine does meets each of
//! them alike, and compared by their medians. The front-end is the one of the virtio-driver crate,
//! which is also libblkio's; a VVU device is compared with a socket by one of our own.

pub mod chart;
pub mod costs;
pub mod front_end;
pub mod guest;
pub mod load;
pub mod local;
pub mod machine;
pub mod markdown;
pub mod measure;
pub mod peer;
pub mod plan;
pub mod report;
pub mod summary;
pub mod syscalls;
pub mod usage;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::progress;
use crate::provision::{BenchmarkTools, benchmark_tools};
use crate::rundir::RunDir;

use costs::Costs;
use machine::Machine;
use measure::{Sample, measure};
use peer::Served;
use plan::{Medium, Options, Peer, Workload};
use summary::Summary;

/// What belongs together: the samples of one workload on one medium.
#[derive(Debug)]
pub struct Cell {
    /// Where the image is.
    pub medium: Medium,
    /// What is done to it.
    pub workload: Workload,
    /// What each peer achieved, in the order they take turns.
    pub peers: Vec<(Peer, Summary)>,
}

/// Everything that a benchmark found.
#[derive(Debug)]
pub struct Findings {
    /// Where and when.
    pub machine: Machine,
    /// How often each peer had its turn.
    pub repetitions: usize,
    /// How long a turn was measured.
    pub turn: Duration,
    /// What the peers achieved.
    pub cells: Vec<Cell>,
    /// What they cost without anything to do.
    pub costs: Vec<Costs>,
}

/// Runs the benchmark and writes its report (JSON, Markdown for the README and a chart) to `out`;
/// prints all of it as a table.
pub fn run(options: &Options, out: &Path) -> Result<()> {
    let tools = benchmark_tools()?;
    let _processors = Cache::open()?.lock("lab")?;
    let run = RunDir::new("bench")?;
    let mut findings = Findings {
        machine: Machine::here(),
        repetitions: options.repetitions,
        turn: options.time,
        cells: Vec::new(),
        costs: costs::all(options, &tools, &run)?,
    };
    for medium in options.media() {
        let served = Served::start_all(options, medium, &tools, &run)
            .with_context(|| format!("cannot serve from {}", medium.name()))?;
        for workload in options.workloads(medium) {
            let mut cell = cell(options, medium, workload, &served)?;
            count_syscalls(&mut cell, &served, &tools, &run)?;
            print!("{}", report::rows([&cell].into_iter()));
            findings.cells.push(cell);
        }
    }
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let text = markdown::text(&findings);
    write(out.join("bench.json"), &report::json(&findings)?)?;
    write(out.join("bench.svg"), &chart::svg(&findings.cells))?;
    write(out.join("bench.md"), &text)?;
    print!("\n{}\n{text}", report::table(&findings.cells));
    run.discard()
}

/// Counts after all turns, so that none is disturbed.
fn count_syscalls(
    cell: &mut Cell,
    served: &[Served],
    tools: &BenchmarkTools,
    run: &RunDir,
) -> Result<()> {
    for (peer, summary) in &mut cell.peers {
        let Some(one) = served.iter().find(|one| one.peer == *peer) else {
            continue;
        };
        summary.syscalls = syscalls::count(one, &cell.workload, &tools.strace, run)
            .with_context(|| format!("system calls of {}", peer.name()))?;
    }
    Ok(())
}

/// All repetitions of one workload.
fn cell(options: &Options, medium: Medium, workload: Workload, served: &[Served]) -> Result<Cell> {
    let served = || served.iter().filter(|one| one.peer.takes(medium, workload));
    let mut samples: Vec<(Peer, Vec<Sample>)> =
        served().map(|one| (one.peer, Vec::new())).collect();
    for repetition in 1..=options.repetitions {
        progress(format!(
            "{} {}: {repetition} of {}, load {}",
            medium.name(),
            workload.name,
            options.repetitions,
            usage::load_average()
        ));
        for (one, (peer, samples)) in served().zip(&mut samples) {
            let sample = measure(one, &workload, options)
                .with_context(|| format!("{} with {}", workload.name, peer.name()))?;
            samples.push(sample);
        }
    }
    let peers = samples
        .into_iter()
        .map(|(peer, samples)| (peer, Summary::new(&samples)))
        .collect();
    Ok(Cell {
        medium,
        workload,
        peers,
    })
}

fn write(path: PathBuf, text: &str) -> Result<()> {
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    progress(format!("wrote {}", path.display()));
    Ok(())
}
