//! Measures the costs of a back-end that has no requests: its start time, its memory, and its CPU
//! time.

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

/// The number of starts per turn (measurement). Each peer is started and timed this number of
/// times.
const STARTS: usize = 4;

/// The time limit for a peer to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// The peers (back-ends) whose costs are measured.
const PEERS: [Peer; 3] = [Peer::Ours, Peer::Other, Peer::Qemu];

/// The load on a peer before its costs are measured. The load makes the peer allocate all its
/// memory.
const BEFORE: Workload = Workload {
    name: "before idling",
    block: 4 << 10,
    depth: 32,
    write: false,
};

/// The costs of a peer, as medians of several turns (measurements). The peer offers
/// [`QUEUES`](super::peer::QUEUES) queues, and the front-end uses one of them.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// The peer that has these costs.
    pub peer: Peer,
    /// The time from the peer's start until it is ready to serve, in milliseconds.
    pub start: f64,
    /// The CPU time that the peer uses in one second without requests, in milliseconds. A front-end
    /// is connected.
    pub idle: f64,
    /// The resident memory of the peer in MiB, without the front-end's memory. See [`Memory::rss`].
    pub rss: f64,
    /// The proportional memory (PSS) of the peer in MiB. A page that n processes share counts only
    /// as 1/n of a page. See [`Memory::pss`].
    pub pss: f64,
}

/// Measures the costs of the peers that pass the filter in `options`.
pub fn all(options: &Options, setting: &Setting) -> Result<Vec<Costs>> {
    let wanted: Vec<_> = options.peers(Medium::Tmpfs).collect();
    let peers = PEERS.into_iter().filter(|peer| wanted.contains(peer));
    let served = Served::start_all(peers, Medium::Tmpfs, setting)?;
    progress("measuring idle CPU time and memory");
    let idle = in_turns(&served, options.turns, idle)?;
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

/// Calls `turn` for each peer, one after the other, and repeats this until each peer has been
/// measured `turns` times. Returns the results of each peer.
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

/// The CPU time and memory of a back-end that has a front-end, but no requests.
struct Idle {
    /// The CPU time that the back-end used in one second.
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

/// Starts a peer, and returns the time until it is ready, in milliseconds.
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
