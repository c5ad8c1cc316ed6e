//! Options that limit the speed of the disk.

use block::{Rate, RateLimits};
use clap::Args;
use program::parse_size;

/// Limits on the speed of the disk. All queues share each limit, and take turns when requests have
/// to wait.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Limits")]
pub struct LimitArguments {
    /// The most requests per second. The burst is the number of requests that may come at once
    /// after a quiet time [default: a tenth of N]. All queues share each limit and take turns.
    /// A discard or a write-zeroes request counts as a write. Flushes do not count.
    #[arg(long, value_name = "N[,burst=M]", value_parser = requests)]
    pub iops: Option<Rate>,

    /// The most reads per second.
    #[arg(long, value_name = "N[,burst=M]", value_parser = requests)]
    pub iops_read: Option<Rate>,

    /// The most writes per second.
    #[arg(long, value_name = "N[,burst=M]", value_parser = requests)]
    pub iops_write: Option<Rate>,

    /// The most bytes read or written per second. K, M and G stand for powers of 1024. A discarded
    /// or zeroed range counts as written bytes. A request may be larger than the burst, and then
    /// waits for the bytes that it lacks.
    #[arg(long, value_name = "SIZE[,burst=SIZE]", value_parser = bytes)]
    pub bps: Option<Rate>,

    /// The most bytes read per second.
    #[arg(long, value_name = "SIZE[,burst=SIZE]", value_parser = bytes)]
    pub bps_read: Option<Rate>,

    /// The most bytes written per second.
    #[arg(long, value_name = "SIZE[,burst=SIZE]", value_parser = bytes)]
    pub bps_write: Option<Rate>,
}

impl From<LimitArguments> for RateLimits {
    fn from(arguments: LimitArguments) -> Self {
        Self {
            iops: arguments.iops,
            iops_read: arguments.iops_read,
            iops_write: arguments.iops_write,
            bps: arguments.bps,
            bps_read: arguments.bps_read,
            bps_write: arguments.bps_write,
        }
    }
}

fn requests(text: &str) -> Result<Rate, String> {
    rate(text, |number| match number.parse() {
        Ok(0) | Err(_) => Err(format!("'{number}' is not a number of requests")),
        Ok(count) => Ok(count),
    })
}

fn bytes(text: &str) -> Result<Rate, String> {
    rate(text, parse_size)
}

fn rate(text: &str, number: impl Fn(&str) -> Result<u64, String>) -> Result<Rate, String> {
    match text.split_once(",burst=") {
        None => Ok(Rate::per_second(number(text)?)),
        Some((per_second, burst)) => Ok(Rate {
            per_second: number(per_second)?,
            burst: number(burst)?,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_without_a_burst_gets_a_tenth_of_itself() {
        let rate = |per_second, burst| Ok(Rate { per_second, burst });
        assert_eq!(requests("500"), rate(500, 50));
        assert_eq!(requests("3"), rate(3, 1));
        assert_eq!(requests("500,burst=7"), rate(500, 7));
        assert_eq!(bytes("8M,burst=64K"), rate(8 << 20, 64 << 10));
        for bad in ["", "0", "5K", "5,burst=", "5,burst=0", "5,bust=1", "-1"] {
            assert!(requests(bad).is_err(), "{bad}");
        }
    }
}
