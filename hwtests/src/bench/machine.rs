//! Where and when a benchmark ran.

use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

/// The machine and the day, without which a number means little.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Year, month and day, in UTC.
    pub date: String,
    /// How many processors there are.
    pub processors: usize,
    /// Their model, by their own name.
    pub model: String,
    /// The kernel's release.
    pub kernel: String,
}

impl Machine {
    /// This machine, today. A field is empty where the machine does not tell.
    pub fn here() -> Self {
        let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
        let date = date.map(|output| output.stdout).unwrap_or_default();
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let processors = read("/proc/cpuinfo");
        let model = processors
            .lines()
            .find(|line| line.starts_with("model name"));
        let model = model.and_then(|line| line.split_once(": "));
        Self {
            date: String::from_utf8_lossy(&date).trim().to_owned(),
            processors: available_parallelism().map_or(0, usize::from),
            model: model.map_or(String::new(), |(_, name)| name.trim().to_owned()),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}
