//! What a back-end costs when nothing is to be done: its start, its memory, its sleep.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::measure::load;
use super::peer::Served;
use super::plan::{Medium, Options, Peer, Workload};
use super::summary::median;
use super::usage::{Usage, family, resident, tick};
use crate::process::Process;
use crate::progress;
use crate::provision::BenchmarkTools;
use crate::rundir::RunDir;

/// How often each peer is started.
const STARTS: usize = 10;

/// How long a connected front-end has nothing to do.
const IDLE: Duration = Duration::from_secs(2);

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who is looked at.
const PEERS: [Peer; 2] = [Peer::Ours, Peer::Qemu];

/// What happens before a peer has nothing to do, so that all its memory is there.
const BEFORE: Workload = Workload {
    name: "before idling",
    block: 4 << 10,
    depth: 32,
    write: false,
};

/// What a peer costs.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// Who it is.
    pub peer: Peer,
    /// From its start until it serves, the median in milliseconds.
    pub start: f64,
    /// Milliseconds of CPU time in a second without requests, with a front-end connected.
    pub idle: f64,
    /// Memory of its own in MiB, without the front-end's, of the process that serves.
    pub memory: f64,
}

/// Looks at those peers that are left after filtering.
pub fn all(options: &Options, tools: &BenchmarkTools, run: &RunDir) -> Result<Vec<Costs>> {
    let wanted: Vec<_> = options.peers(Medium::Tmpfs).collect();
    let peers = PEERS.into_iter().filter(|peer| wanted.contains(peer));
    peers
        .map(|peer| of(peer, tools, run).with_context(|| format!("costs of {}", peer.name())))
        .collect()
}

fn of(peer: Peer, tools: &BenchmarkTools, run: &RunDir) -> Result<Costs> {
    progress(format!("start and sleep of {}", peer.name()));
    let served = Served::start(peer, Medium::Tmpfs, tools, run)?;
    let mut load = load(&served, &BEFORE)?;
    load.run(Duration::from_millis(300))?;
    let begin = Usage::of(&served.pids())?;
    thread::sleep(IDLE);
    let used = Usage::of(&served.pids())?.since(begin);
    let memory = family(&served.pids())?.into_iter().map(resident);
    let memory = memory.collect::<Result<Vec<_>>>()?;
    drop(load);
    served.end()?;
    let starts = (0..STARTS).map(|_| start(&served, tools, run));
    Ok(Costs {
        peer,
        start: median(starts.collect::<Result<_>>()?),
        idle: used.ticks as f64 * tick() * 1e3 / IDLE.as_secs_f64(),
        memory: memory.into_iter().max().unwrap_or_default() as f64 / f64::from(1 << 20),
    })
}

/// Milliseconds that a start takes.
fn start(served: &Served, tools: &BenchmarkTools, run: &RunDir) -> Result<f64> {
    let socket = run.file("start.sock");
    let mut command = served.command(&socket, tools)?;
    let begin = Instant::now();
    let process = Process::spawn("start", &mut command, run.path())?;
    match served.peer {
        Peer::Ours => process.wait_line("ready:", PATIENCE).map(drop)?,
        _ => until_served(&socket, begin)?,
    }
    let time = begin.elapsed();
    process.terminate(PATIENCE)?;
    let _ = std::fs::remove_file(&socket);
    Ok(time.as_secs_f64() * 1e3)
}

fn until_served(socket: &Path, begin: Instant) -> Result<()> {
    while UnixStream::connect(socket).is_err() {
        ensure!(begin.elapsed() < PATIENCE, "nobody serves");
        thread::sleep(Duration::from_micros(50));
    }
    Ok(())
}
