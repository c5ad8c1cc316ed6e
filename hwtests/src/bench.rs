//! The benchmark. It compares our back-end with qemu-storage-daemon and with the kernel alone (fio
//! on the image itself), or with another build of our back-end.
//!
//! The peers (the compared programs) take turns, so that other load on the machine affects all
//! peers alike. A turn is one measurement of one peer. The results are compared by their medians.
//! Requests come from the front-end of the virtio-driver crate, which libblkio uses, too. Only the
//! comparison of a VVU device with a socket uses a front-end of our own.

pub mod beside;
pub mod chart;
pub mod costs;
pub mod front_end;
pub mod guest;
pub mod image;
pub mod load;
pub mod local;
pub mod machine;
pub mod markdown;
pub mod measure;
pub mod peer;
pub mod plan;
pub mod report;
pub mod rounds;
pub mod sample;
pub mod setting;
pub mod summary;
pub mod syscalls;
pub mod usage;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::progress;

use costs::Costs;
use machine::Machine;
use peer::Served;
use plan::{Medium, Options, Peer, Workload};
use setting::Setting;
use summary::Summary;

/// The results of one workload on one medium, for all measured peers.
#[derive(Debug)]
pub struct Cell {
    /// The medium of the image, such as tmpfs.
    pub medium: Medium,
    /// The size, number and direction of the requests.
    pub workload: Workload,
    /// The results of each peer (measured program).
    pub peers: Vec<(Peer, Summary)>,
}

impl Cell {
    /// The results of a peer, or `None` if the peer was not measured.
    pub fn summary(&self, peer: Peer) -> Option<&Summary> {
        let found = self.peers.iter().find(|(one, _)| *one == peer);
        found.map(|(_, summary)| summary)
    }

    /// The name of the medium and of the workload, such as `tmpfs read-4k-qd1`.
    pub fn name(&self) -> String {
        format!("{} {}", self.medium.name(), self.workload.name)
    }
}

/// All results of a benchmark.
#[derive(Debug)]
pub struct Findings {
    /// The machine and the date.
    pub machine: Machine,
    /// The number of turns (measurements) of each peer with each workload.
    pub turns: usize,
    /// The measured time of a turn, which does not include the warm-up.
    pub turn: Duration,
    /// The results of the peers, by medium and workload.
    pub cells: Vec<Cell>,
    /// The costs of the peers when they have no requests.
    pub costs: Vec<Costs>,
}

/// Runs the benchmark, prints the results as a table, and writes them to the folder `out`. The
/// formats are JSON, Markdown and, if the comparison is with qemu-storage-daemon, a chart.
pub fn run(options: &Options, out: &Path) -> Result<()> {
    let setting = Setting::new(options)?;
    let _processors = Cache::open()?.lock("lab")?;
    let mut findings = Findings {
        machine: Machine::here(),
        turns: options.turns,
        turn: options.time,
        cells: Vec::new(),
        costs: costs::all(options, &setting)?,
    };
    for medium in options.media() {
        let served = Served::start_all(options.peers(medium), medium, &setting)
            .with_context(|| format!("cannot serve from {}", medium.name()))?;
        for workload in options.workloads(medium) {
            let mut cell = rounds::run(options, medium, workload, &served)?;
            count_syscalls(&mut cell, &served, &setting)?;
            print!("{}", report::rows([&cell].into_iter()));
            findings.cells.push(cell);
        }
    }
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    write(out.join("bench.json"), &report::json(&findings)?)?;
    let text = match &options.beside {
        Some(_) => beside::text(&findings),
        None => {
            write(out.join("bench.svg"), &chart::svg(&findings.cells))?;
            markdown::text(&findings)
        }
    };
    write(out.join("bench.md"), &text)?;
    print!("\n{}\n{text}", report::table(&findings.cells));
    setting.run.discard()
}

/// Counts the system calls of each peer. This step comes after all measurements (turns) with the
/// workload, because strace would disturb the measurements.
fn count_syscalls(cell: &mut Cell, served: &[Served], setting: &Setting) -> Result<()> {
    for (peer, summary) in &mut cell.peers {
        let Some(one) = served.iter().find(|one| one.peer == *peer) else {
            continue;
        };
        summary.syscalls = syscalls::count(one, &cell.workload, setting)
            .with_context(|| format!("system calls of {}", peer.name()))?;
    }
    Ok(())
}

fn write(path: PathBuf, text: &str) -> Result<()> {
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    progress(format!("wrote {}", path.display()));
    Ok(())
}
