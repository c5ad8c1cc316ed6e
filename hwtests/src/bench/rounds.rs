//! Measures all peers (compared programs) with one workload, in rounds. In each round, each peer
//! has one turn, which is one measurement.

use anyhow::{Context, Result};

use super::Cell;
use super::measure::measure;
use super::peer::Served;
use super::plan::{Medium, Options, Workload};
use super::sample::Sample;
use super::summary::Summary;
use super::usage;
use crate::progress;

/// The results of one turn of each peer, in the order of the peers.
type Round = Vec<Sample>;

/// Runs rounds until `options.turns` rounds were quiet (not disturbed by other programs), but at
/// most twice `options.turns` rounds. Keeps the quietest `options.turns` rounds. The choice depends
/// only on the CPU time of other programs, so it favours no peer.
pub fn run(
    options: &Options,
    medium: Medium,
    workload: Workload,
    served: &[Served],
) -> Result<Cell> {
    let wanted = options.turns;
    let mut rounds: Vec<Round> = Vec::new();
    while rounds.len() < 2 * wanted && quiet(&rounds) < wanted {
        progress(format!(
            "{} {}: round {}, {} of {wanted} quiet so far, load {}",
            medium.name(),
            workload.name,
            rounds.len() + 1,
            quiet(&rounds),
            usage::load_average()
        ));
        rounds.push(round(options, &workload, served, rounds.len())?);
    }
    let peers = served.iter().map(|one| one.peer);
    let samples = columns(quietest(rounds, wanted), served.len());
    Ok(Cell {
        medium,
        workload,
        peers: peers.zip(samples.into_iter().map(Summary::new)).collect(),
    })
}

/// Runs one round. Every second round has the reverse order of peers (A B C C B A), so that no peer
/// gains from a machine that slowly gets faster or slower.
fn round(
    options: &Options,
    workload: &Workload,
    served: &[Served],
    number: usize,
) -> Result<Round> {
    let mut order: Vec<_> = (0..served.len()).collect();
    if number % 2 == 1 {
        order.reverse();
    }
    let mut round = vec![Sample::default(); served.len()];
    for at in order {
        let one = &served[at];
        round[at] = measure(one, workload, options)
            .with_context(|| format!("{} with {}", workload.name, one.peer.name()))?;
        if workload.write {
            one.image.settle()?;
        }
    }
    Ok(round)
}

fn quiet(rounds: &[Round]) -> usize {
    let is_quiet = |round: &&Round| !round.iter().any(Sample::is_noisy);
    rounds.iter().filter(is_quiet).count()
}

fn quietest(mut rounds: Vec<Round>, wanted: usize) -> Vec<Round> {
    let noise = |round: &Round| {
        round
            .iter()
            .map(|sample| sample.foreign)
            .fold(0.0, f64::max)
    };
    rounds.sort_by(|a, b| noise(a).total_cmp(&noise(b)));
    rounds.truncate(wanted);
    rounds
}

/// Groups the samples of all rounds by peer.
fn columns(rounds: Vec<Round>, peers: usize) -> Vec<Vec<Sample>> {
    let column = |peer| rounds.iter().map(|round| round[peer]).collect();
    (0..peers).map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(iops: f64, foreign: f64) -> Sample {
        Sample {
            iops,
            foreign,
            ..Sample::default()
        }
    }

    #[test]
    fn the_quietest_rounds_are_kept_as_a_whole() {
        let rounds = vec![
            vec![sample(1.0, 0.5), sample(10.0, 0.0)],
            vec![sample(2.0, 0.1), sample(20.0, 0.1)],
            vec![sample(3.0, 0.0), sample(30.0, 0.2)],
        ];
        assert_eq!(quiet(&rounds), 1);
        let iops = columns(quietest(rounds, 2), 2)
            .into_iter()
            .map(|samples| samples.iter().map(|sample| sample.iops).collect::<Vec<_>>());
        assert_eq!(iops.collect::<Vec<_>>(), [[2.0, 3.0], [20.0, 30.0]]);
    }
}
