//! Several turns as one.

use super::measure::Sample;

/// Others' share of the processors above which a turn says little.
const NOISY: f64 = 0.15;

/// What a peer achieved in all its turns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Each number's median.
    pub median: Sample,
    /// The difference between the best and the worst turn's IOPS, as part of the median.
    pub spread: f64,
    /// How many turns there were.
    pub turns: usize,
    /// In how many of them the machine was too busy with something else.
    pub noisy: usize,
    /// System calls of the back-end for a request, counted in a run of its own.
    pub syscalls: Option<f64>,
}

impl Summary {
    /// Sums samples up; there has to be one.
    pub fn new(samples: &[Sample]) -> Self {
        let all = |get: fn(&Sample) -> f64| median(samples.iter().map(get).collect());
        let median = Sample {
            iops: all(|sample| sample.iops),
            p50: all(|sample| sample.p50),
            p99: all(|sample| sample.p99),
            p999: all(|sample| sample.p999),
            cpu: all(|sample| sample.cpu),
            switches: all(|sample| sample.switches),
            foreign: all(|sample| sample.foreign),
        };
        let iops = || samples.iter().map(|sample| sample.iops);
        let range = iops().fold(0.0, f64::max) - iops().fold(f64::MAX, f64::min);
        Self {
            median,
            spread: range / median.iops,
            turns: samples.len(),
            noisy: samples.iter().filter(|s| s.foreign > NOISY).count(),
            syscalls: None,
        }
    }
}

/// The middle of some numbers.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        _ if values.is_empty() => 0.0,
        0 => (values[middle - 1] + values[middle]) / 2.0,
        _ => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outlier_moves_the_spread_but_not_the_median() {
        let samples = [90.0, 110.0, 100.0, 900.0, 80.0].map(|iops| Sample {
            iops,
            foreign: if iops > 500.0 { 0.5 } else { 0.0 },
            ..Sample::default()
        });
        let summary = Summary::new(&samples);
        assert_eq!(summary.median.iops, 100.0);
        assert!((summary.spread - 8.2).abs() < 1e-9);
        assert_eq!((summary.turns, summary.noisy), (5, 1));
    }

    #[test]
    fn the_median_of_two_is_between_them() {
        assert_eq!(median(vec![1.0, 3.0]), 2.0);
        assert_eq!(median(vec![]), 0.0);
    }
}
