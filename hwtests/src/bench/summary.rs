//! Combines the results of several turns (measurements) of a peer.

use super::sample::Sample;

/// A turn is noisy if other programs used more than this fraction of the processors' time.
const NOISY: f64 = 0.15;

/// The results of a peer in all its turns.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The median of each field of the samples.
    pub median: Sample,
    /// The samples of all turns. If two peers' samples have the same index, they are from the same
    /// round, in which each peer was measured once.
    pub samples: Vec<Sample>,
    /// The number of system calls of the back-end per request, counted in a separate run. It is
    /// `None` if the system calls were not counted.
    pub syscalls: Option<f64>,
}

impl Summary {
    /// Computes the medians of samples. There must be at least one sample.
    pub fn new(samples: Vec<Sample>) -> Self {
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
        Self {
            median,
            samples,
            syscalls: None,
        }
    }

    /// The number of turns (measurements).
    pub fn turns(&self) -> usize {
        self.samples.len()
    }

    /// The number of noisy turns, which other programs disturbed.
    pub fn noisy(&self) -> usize {
        self.samples.iter().filter(|s| s.is_noisy()).count()
    }

    /// The difference between the best and the worst IOPS of all turns, as a fraction of the
    /// median.
    pub fn spread(&self) -> f64 {
        let (least, most) = range(self.samples.iter().map(|sample| sample.iops));
        (most - least) / self.median.iops
    }
}

impl Sample {
    /// Whether other programs used so much of the processors' time that the result is not reliable.
    pub fn is_noisy(&self) -> bool {
        self.foreign > NOISY
    }
}

/// The minimum and the maximum of the values.
pub fn range(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let least = values.clone().fold(f64::INFINITY, f64::min);
    (least, values.fold(f64::NEG_INFINITY, f64::max))
}

/// The median of the values, or 0 if there are no values.
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
        let summary = Summary::new(samples.to_vec());
        assert_eq!(summary.median.iops, 100.0);
        assert!((summary.spread() - 8.2).abs() < 1e-9);
        assert_eq!((summary.turns(), summary.noisy()), (5, 1));
    }

    #[test]
    fn the_median_of_two_is_between_them() {
        assert_eq!(median(vec![1.0, 3.0]), 2.0);
        assert_eq!(median(vec![]), 0.0);
    }
}
