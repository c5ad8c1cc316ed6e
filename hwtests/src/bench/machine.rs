//! The machine and the date of a benchmark.

use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

/// The machine and the date. The numbers of a benchmark depend on both.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The date: year, month and day, in UTC.
    pub date: String,
    /// The number of processors.
    pub processors: usize,
    /// The model of the processors, as they report it.
    pub model: String,
    /// The release of the kernel.
    pub kernel: String,
}

impl Machine {
    /// Describes this machine, and takes today's date. A field is empty or 0 if the machine does
    /// not report its value.
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
