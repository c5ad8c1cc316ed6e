//! Hostile peers: attacks on the programs, each with the defence that is expected.
//!
//! An [`Attack`] is run twice against a fresh program. The first time, the villain measures the
//! program under the attack, ends the attack, and checks that a well-behaved peer is served. The
//! second time, the program has to end in time after SIGTERM although the attack goes on. To add an
//! attack, add an entry to one of the lists in `attacks`.

mod attack;
mod attacks;
mod device_vm;
mod disk;
mod driver;
mod eventfd;
mod front_end;
mod messages;
mod repeat;
mod report;
mod shared;
mod target;
mod trial;
mod unwatched;
mod victim;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::cache::Cache;
use crate::rundir::RunDir;

pub use attack::Attack;

/// The time limit of a well-behaved peer for each answer of a program.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs the attacks with one of these words in their program and name, or all if there are no
/// words. Prints a row for each.
///
/// # Errors
///
/// When a program does not withstand an attack, unless the attack is known for that.
pub fn run(words: &[String]) -> Result<()> {
    let run = RunDir::new("villain")?;
    let _processors = Cache::open()?.lock("lab")?;
    let start = Instant::now();
    println!("{}", report::heading());
    let (mut count, mut broken) = (0, Vec::new());
    for attack in attacks::all().filter(|attack| attack.has_one_of(words)) {
        let outcome = trial::run(attack, &run);
        println!("{}", report::row(attack, &outcome));
        count += 1;
        if !outcome.held() && attack.known.is_none() {
            broken.push(attack.title());
        }
    }
    let seconds = start.elapsed().as_secs();
    println!("{count} attacks in {seconds} s");
    ensure!(broken.is_empty(), "not withstood: {}", broken.join(", "));
    run.discard()
}
