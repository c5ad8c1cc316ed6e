//! The benchmark: our back-end beside qemu-storage-daemon and the kernel's own limit.
//!
//! All are measured in turns (A B C A B C ...), so that what else the machine does meets each of
//! them alike, and compared by their medians. The front-end is the one of the virtio-driver crate,
//! which is also libblkio's: it sleeps on the call eventfd as a guest sleeps until its interrupt.

pub mod chart;
pub mod front_end;
pub mod load;
pub mod local;
pub mod measure;
pub mod peer;
pub mod plan;
pub mod report;
pub mod summary;
pub mod usage;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::progress;
use crate::provision::benchmark_tools;
use crate::rundir::RunDir;

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

/// Runs the benchmark and writes its report (JSON and a chart) to `out`; prints it as a table.
pub fn run(options: &Options, out: &std::path::Path) -> Result<()> {
    let tools = benchmark_tools()?;
    let _processors = Cache::open()?.lock("lab")?;
    let run = RunDir::new("bench")?;
    let mut cells = Vec::new();
    for medium in options.media() {
        let served = Served::start_all(options, medium, &tools, &run)
            .with_context(|| format!("cannot serve from {}", medium.name()))?;
        for workload in options.workloads(medium) {
            cells.push(cell(options, medium, workload, &served)?);
            print!("{}", report::rows(cells.last().into_iter()));
        }
    }
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    write(out.join("bench.json"), &report::json(&cells)?)?;
    write(out.join("bench.svg"), &chart::svg(&cells))?;
    print!("\n{}", report::table(&cells));
    run.discard()
}

/// All repetitions of one workload.
fn cell(options: &Options, medium: Medium, workload: Workload, served: &[Served]) -> Result<Cell> {
    let mut samples: Vec<(Peer, Vec<Sample>)> =
        served.iter().map(|one| (one.peer, Vec::new())).collect();
    for repetition in 1..=options.repetitions {
        progress(format!(
            "{} {}: {repetition} of {}, load {}",
            medium.name(),
            workload.name,
            options.repetitions,
            usage::load_average()
        ));
        for (one, (peer, samples)) in served.iter().zip(&mut samples) {
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
