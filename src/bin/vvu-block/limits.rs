//! How fast the disk may be, on the command line.

use block::{Rate, RateLimits};
use clap::Args;
use vvu_block::parse_size;

/// Limits; all queues share them and take turns where they have to wait.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Limits")]
pub struct LimitArguments {
    /// How many requests a second, and how many of them at once after a while with fewer [default: a
    /// tenth of a second's]. All queues share each limit and take turns. Discards and zeroes count as
    /// writes without bytes; flushes do not count.
    #[arg(long, value_name = "N[,burst=M]", value_parser = requests)]
    pub iops: Option<Rate>,

    /// How many reads a second.
    #[arg(long, value_name = "N[,burst=M]", value_parser = requests)]
    pub iops_read: Option<Rate>,

    /// How many writes a second.
    #[arg(long, value_name = "N[,burst=M]", value_parser = requests)]
    pub iops_write: Option<Rate>,

    /// How many bytes a second, read or written; K, M and G are powers of 1024. A request may be larger
    /// than the burst: those after it wait the longer.
    #[arg(long, value_name = "SIZE[,burst=SIZE]", value_parser = bytes)]
    pub bps: Option<Rate>,

    /// How many bytes are read a second.
    #[arg(long, value_name = "SIZE[,burst=SIZE]", value_parser = bytes)]
    pub bps_read: Option<Rate>,

    /// How many bytes are written a second.
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
        Ok(0) | Err(_) => Err(format!("'{number}' is no number of requests")),
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
    fn rates_have_a_burst_or_a_default() {
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
