//! The results of one turn, which is one measurement of one peer.

/// The results of one turn, which is one measurement of one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// The number of requests per second.
    pub iops: f64,
    /// The median latency in microseconds.
    pub p50: f64,
    /// The latency in microseconds that one request in a hundred exceeds.
    pub p99: f64,
    /// The latency in microseconds that one request in a thousand exceeds.
    pub p999: f64,
    /// The CPU time that the back-end used per request, in microseconds.
    pub cpu: f64,
    /// The number of context switches of the back-end per request.
    pub switches: f64,
    /// The fraction of the processors' time that programs other than the peer and the benchmark
    /// used, from 0 to 1.
    pub foreign: f64,
}
