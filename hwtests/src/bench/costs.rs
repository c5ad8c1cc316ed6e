//! What a back-end costs when it has nothing to do: its start, its memory, its sleep.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::measure::load;
use super::peer::Served;
use super::plan::{Medium, Options, Peer, Workload};
use super::setting::Setting;
use super::summary::median;
use super::usage::{Memory, Usage};
use crate::process::Process;
use crate::progress;

/// How many times each peer starts for each turn that it has.
const STARTS: usize = 4;

/// How long a start or an end may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The peers whose costs are measured.
const PEERS: [Peer; 3] = [Peer::Ours, Peer::Other, Peer::Qemu];

/// The load that comes before a peer has nothing to do, so that all its memory is there.
const BEFORE: Workload = Workload {
    name: "before idling",
    block: 4 << 10,
    depth: 32,
    write: false,
};

/// What a peer costs: medians of several turns. It offers [`QUEUES`](super::peer::QUEUES) queues,
/// of which the front-end uses one.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// Who it is.
    pub peer: Peer,
    /// From its start until it serves, in milliseconds.
    pub start: f64,
    /// Milliseconds of CPU time in a second without requests, with a front-end connected.
    pub idle: f64,
    /// Resident memory in MiB, without the front-end's; see [`Memory::rss`].
    pub rss: f64,
    /// The same, where shared pages count in part; see [`Memory::pss`].
    pub pss: f64,
}

/// Measures the costs of the peers that are left after filtering.
pub fn all(options: &Options, setting: &Setting) -> Result<Vec<Costs>> {
    let wanted: Vec<_> = options.peers(Medium::Tmpfs).collect();
    let peers = PEERS.into_iter().filter(|peer| wanted.contains(peer));
    let served = peers.map(|peer| Served::start(peer, Medium::Tmpfs, setting));
    let served: Vec<_> = served.collect::<Result<_>>()?;
    progress("sleep and memory");
    let idle = in_turns(&served, options.turns, idle)?;
    // One that still ran would keep its image locked.
    served.iter().try_for_each(Served::end)?;
    progress("start");
    let starts = in_turns(&served, STARTS * options.turns, |served| {
        start(served, setting)
    })?;
    let found = served.iter().zip(starts).zip(idle);
    Ok(found
        .map(|((served, starts), idle)| Costs::new(served.peer, starts, &idle))
        .collect())
}

/// The results of each peer.
fn in_turns<T>(
    served: &[Served],
    turns: usize,
    turn: impl Fn(&Served) -> Result<T>,
) -> Result<Vec<Vec<T>>> {
    let mut all: Vec<_> = served.iter().map(|_| Vec::new()).collect();
    for _ in 0..turns {
        for (one, found) in served.iter().zip(&mut all) {
            let result = turn(one).with_context(|| format!("costs of {}", one.peer.name()));
            found.push(result?);
        }
    }
    Ok(all)
}

/// A back-end without requests, with a front-end connected.
struct Idle {
    /// CPU time in a second.
    cpu: Duration,
    memory: Memory,
}

impl Costs {
    fn new(peer: Peer, starts: Vec<f64>, idle: &[Idle]) -> Self {
        let middle = |get: fn(&Idle) -> f64| median(idle.iter().map(get).collect());
        let mebibyte = f64::from(1 << 20);
        Self {
            peer,
            start: median(starts),
            idle: middle(|idle| idle.cpu.as_secs_f64() * 1e3),
            rss: middle(|idle| idle.memory.rss as f64) / mebibyte,
            pss: middle(|idle| idle.memory.pss as f64) / mebibyte,
        }
    }
}

fn idle(served: &Served) -> Result<Idle> {
    let pids = served.pids();
    let mut load = load(served, &BEFORE)?;
    load.run(Duration::from_millis(300))?;
    let begin = Usage::of(&pids)?;
    thread::sleep(Duration::from_secs(1));
    Ok(Idle {
        cpu: Usage::of(&pids)?.since(begin).cpu,
        memory: Memory::of(&pids)?,
    })
}

/// How many milliseconds a start takes.
fn start(served: &Served, setting: &Setting) -> Result<f64> {
    let socket = setting.run.file("start.sock");
    let mut command = served.command(&socket, setting)?;
    let begin = Instant::now();
    let process = Process::spawn("start", &mut command, setting.run.path())?;
    if served.peer == Peer::Qemu {
        until_served(&socket, begin)?;
    } else {
        process.wait_line("ready:", PATIENCE)?;
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
