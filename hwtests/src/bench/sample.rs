//! What is measured in one turn.

/// What a turn achieved.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Requests a second.
    pub iops: f64,
    /// Median latency in microseconds.
    pub p50: f64,
    /// The latency that one request in a hundred exceeds.
    pub p99: f64,
    /// The latency that one request in a thousand exceeds.
    pub p999: f64,
    /// Microseconds of CPU time that the back-end used for a request.
    pub cpu: f64,
    /// Context switches of the back-end for a request.
    pub switches: f64,
    /// The part of the processors' time that others used: neither a peer nor the benchmark.
    pub foreign: f64,
}
