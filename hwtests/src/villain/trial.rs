//! Runs an attack and judges how the program withstands it.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::attack::{Attack, Load};
use super::device_vm::Latency;
use super::victim::Victim;
use crate::bench::usage::{Memory, Usage};
use crate::process::Process;
use crate::rundir::RunDir;

/// The time for which a program is watched under an attack.
const WATCH: Duration = Duration::from_secs(1);

/// The most processor time that a program may use under this load, in percent of one processor.
fn most_cpu(load: Load) -> f64 {
    match load {
        Load::Idle => 2.0,
        // The queues look at their rings some 30 times a second each.
        Load::Polling => 25.0,
        Load::Busy => f64::INFINITY,
    }
}

/// The most memory that a program may have, without the memory that peers share. The largest part
/// belongs to requests in flight: each of them may have 4,096 pieces.
const MEMORY: u64 = 192 << 20;

/// The most log lines in the time of a launch and a watch. A message of one place is logged some 10
/// times in 5 seconds, and an attack reaches a few places.
const LINES: usize = 60;

/// The exit status of a program that stopped, and of a program whose supervisor had to kill it.
const STOPPED: [i32; 2] = [0, 4];

/// The time limit for a program to end after SIGTERM: the default of the programs, and a second
/// for the villain.
const END: Duration = Duration::from_secs(11);

/// How much slower the other peer of a program may be served.
const SLOWER: u32 = 2;

/// An increase of the latency that is always allowed. The villain and the program share the
/// processors, so that an answer has to wait for a processor now and then.
const NOISE: Duration = Duration::from_micros(250);

/// The slowest answer that is allowed. An answer that takes longer is due to the attack, not to
/// the machine.
const WORST: Duration = Duration::from_millis(500);

/// The measurements of a program under an attack.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The used processor time in percent of one processor.
    pub cpu: Option<f64>,
    /// The memory in bytes.
    pub memory: Option<u64>,
    /// The number of log lines.
    pub lines: Option<usize>,
    /// The latency of the other peer without and with the attack.
    pub latency: Option<(Latency, Latency)>,
    /// The time from SIGTERM to the end of the program.
    pub end: Option<Duration>,
    /// The reasons why the program does not withstand the attack.
    pub faults: Vec<String>,
}

impl Outcome {
    /// Whether the program withstands the attack.
    pub fn held(&self) -> bool {
        self.faults.is_empty()
    }

    /// Notes a fault, and returns the value if there is none.
    fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        result
            .map_err(|error| self.faults.push(format!("{error:#}")))
            .ok()
    }
}

/// Runs an attack against a program that is started for it.
pub fn run(attack: &Attack, run: &RunDir) -> Outcome {
    let mut outcome = Outcome::default();
    let Some(victim) = outcome.note(Victim::start(attack.target, attack.setting, run)) else {
        return outcome;
    };
    let watched = watch(attack, &victim, &mut outcome);
    outcome.note(watched);
    let served = victim.check_served().context("after the attack");
    outcome.note(served);
    let ended = end(attack, &victim);
    outcome.end = outcome.note(ended);
    outcome
}

/// Launches an attack and measures the program under it.
fn watch(attack: &Attack, victim: &Victim<'_>, outcome: &mut Outcome) -> Result<()> {
    let before = victim
        .device
        .as_ref()
        .map(|device| device.latency())
        .transpose()?;
    let lines = count_lines(&victim.process)?;
    let _siege = (attack.launch)(victim).context("the attack")?;
    let cpu = cpu(&victim.process)?;
    outcome.cpu = Some(cpu);
    if cpu > most_cpu(attack.load) {
        outcome
            .faults
            .push(format!("it uses {cpu:.1} % of a processor"));
    }
    let memory = Memory::of(&[victim.process.id()])?.rss;
    outcome.memory = Some(memory);
    if memory > MEMORY {
        outcome.faults.push(format!("it has {} MiB", memory >> 20));
    }
    if let (Some(device), Some(before)) = (&victim.device, before) {
        let during = device.latency()?;
        outcome.latency = Some((before, during));
        if during.median > SLOWER * before.median + NOISE || during.worst > WORST {
            outcome
                .faults
                .push("the other peer is served slowly".to_owned());
        }
    }
    let lines = count_lines(&victim.process)? - lines;
    outcome.lines = Some(lines);
    if lines > LINES {
        outcome.faults.push(format!("it logs {lines} lines"));
    }
    Ok(())
}

/// The processor time that a program uses in the time of a watch, in percent of one processor.
fn cpu(process: &Process) -> Result<f64> {
    let pids = [process.id()];
    let (before, start) = (Usage::of(&pids)?, Instant::now());
    thread::sleep(WATCH);
    let used = Usage::of(&pids)?.since(before).cpu;
    Ok(100.0 * used.as_secs_f64() / start.elapsed().as_secs_f64())
}

fn count_lines(process: &Process) -> Result<usize> {
    let log = std::fs::read(process.log()).context("cannot read the log")?;
    Ok(log.iter().filter(|byte| **byte == b'\n').count())
}

/// Launches an attack and ends the program under it. Returns the time that this takes.
fn end(attack: &Attack, victim: &Victim<'_>) -> Result<Duration> {
    let _siege = (attack.launch)(victim).context("the second attack")?;
    let start = Instant::now();
    let output = victim.process.terminate(END).context("SIGTERM")?;
    let status = output.status;
    ensure!(STOPPED.contains(&status), "it ends with status {status}");
    Ok(start.elapsed())
}
