//! Reads the CPU time and memory that processes and the machine have used.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// The CPU time of processes, and the number of their context switches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The user and system time of all threads, including threads that have ended.
    pub cpu: Duration,
    /// The number of context switches of the threads that still run.
    pub switches: u64,
}

impl Usage {
    /// The CPU time and the context switches of these processes and their descendants so far.
    pub fn of(pids: &[u32]) -> Result<Self> {
        let mut sum = Self::default();
        for pid in family(pids)? {
            sum.cpu += cpu(pid).with_context(|| format!("CPU time of process {pid}"))?;
            sum.switches += switches(pid)?;
        }
        Ok(sum)
    }

    /// The difference between this usage and the earlier usage `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            switches: self.switches.saturating_sub(before.switches),
        }
    }
}

/// The ids of these processes and their descendants.
pub fn family(pids: &[u32]) -> Result<Vec<u32>> {
    let mut all = pids.to_vec();
    let mut at = 0;
    while let Some(&pid) = all.get(at) {
        all.extend(children(pid)?);
        at += 1;
    }
    Ok(all)
}

/// The memory of processes in bytes, without the front-end's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The size of all resident pages.
    pub rss: u64,
    /// The proportional size of all resident pages. A page that several processes share, such as a
    /// page of a library, is divided evenly among these processes.
    pub pss: u64,
}

/// A mapping in `/proc/PID/smaps` is memory of the front-end if its name contains one of these
/// strings.
const FRONT_END: [&str; 2] = ["/memfd:", "/dev/shm/"];

impl Memory {
    /// The memory of these processes and their descendants.
    pub fn of(pids: &[u32]) -> Result<Self> {
        let mut sum = Self::default();
        for pid in family(pids)? {
            sum.add(&read(&format!("/proc/{pid}/smaps"))?);
        }
        Ok(sum)
    }

    /// Adds the memory of one process, from the text of its `/proc/PID/smaps`. The numbers in
    /// `/proc/PID/status` would not be exact, because the kernel counts them separately on each
    /// processor and adds them up only at intervals.
    fn add(&mut self, smaps: &str) {
        let mut counts = true;
        for line in smaps.lines() {
            let mut words = line.split_ascii_whitespace();
            let sum = match words.next() {
                Some("Rss:") => &mut self.rss,
                Some("Pss:") => &mut self.pss,
                Some(name) if name.ends_with(':') => continue,
                _ => {
                    counts = !FRONT_END.iter().any(|name| line.contains(name));
                    continue;
                }
            };
            let kilobytes = words.next().and_then(|word| word.parse::<u64>().ok());
            if counts {
                *sum += kilobytes.unwrap_or_default() << 10;
            }
        }
    }
}

/// The time since boot in which the machine's processors were not idle, as a sum over all
/// processors.
pub fn busy() -> Result<Duration> {
    let stat = read("/proc/stat")?;
    let first = stat.lines().next().unwrap_or_default();
    let numbers: Vec<u64> = first.split(' ').filter_map(|n| n.parse().ok()).collect();
    // The fields are: user nice system idle iowait irq softirq steal. The later fields (guest and
    // guest_nice) are already part of user and nice.
    let busy = [0, 1, 2, 5, 6, 7];
    Ok(duration(
        busy.iter().filter_map(|&at| numbers.get(at)).sum(),
    ))
}

/// The CPU time of the children of this process that have already ended.
pub fn children_cpu() -> Result<Duration> {
    let stat = read("/proc/self/stat")?;
    let ticks = parse_ticks(&stat, 13).context("cannot read the CPU time of children")?;
    Ok(duration(ticks))
}

/// The machine's load averages, as the kernel prints them.
pub fn load_average() -> String {
    let text = read("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Converts a number of the kernel's clock ticks to a duration.
fn duration(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The CPU time of a process. It is read from the process's CPU clock, because `/proc` counts in
/// ticks of 10 ms.
fn cpu(pid: u32) -> Result<Duration> {
    let pid = Pid::from_raw(i32::try_from(pid)?);
    Ok(clock_getcpuclockid(pid)?.now()?.into())
}

/// The sum of the user and system time in a line of `/proc/PID/stat`, in clock ticks. Between the
/// process's name and these two times, the line has `skip` other fields. For the times of the
/// process's children, `skip` is 13. The name may contain any character, so the name ends at the
/// last `) ` in the line.
fn parse_ticks(stat: &str, skip: usize) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(skip);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The ids of the processes whose parent is `parent`. All processes are searched, because not every
/// kernel lists the children of a process.
fn children(parent: u32) -> Result<Vec<u32>> {
    let entries = fs::read_dir("/proc").context("cannot read /proc")?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        parse_parent(&stat) == Some(parent)
    };
    Ok(names.filter(is_child).collect())
}

fn parse_parent(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(1)?.parse().ok()
}

fn switches(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A file that cannot be read counts as empty, because the thread may have ended meanwhile.
        let status = fs::read_to_string(task?.path().join("status")).unwrap_or_default();
        sum += parse_switches(&status);
    }
    Ok(sum)
}

fn parse_switches(status: &str) -> u64 {
    let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
    lines
        .filter_map(|line| line.split('\t').nth(1)?.parse::<u64>().ok())
        .sum()
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_proc_has_them() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 90 0 0 0 12 30 0 0 20 0 1 0 5 0 0";
        assert_eq!(parse_ticks(stat, 11), Some(42));
        assert_eq!(parse_parent(stat), Some(1));
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t7\n";
        assert_eq!(parse_switches(status), 12);
    }

    #[test]
    fn memory_of_the_front_end_does_not_count() {
        let smaps = "5600-5700 rw-p 0000 00:00 0 [heap]\nSize: 90 kB\nRss: 8 kB\nPss: 8 kB\n\
                     VmFlags: rd wr\n7f00-7f01 r--p 0000 fe:00 7 /lib/libc.so\nRss: 6 kB\n\
                     Pss: 2 kB\n7f02-7f03 rw-s 0000 00:01 8 /memfd:buffers (deleted)\n\
                     Rss: 64 kB\nPss: 32 kB\n";
        let mut memory = Memory::default();
        memory.add(smaps);
        let expected = Memory {
            rss: 14 << 10,
            pss: 10 << 10,
        };
        assert_eq!(memory, expected);
    }

    /// The test does not count descendants, because other tests start child processes, which may
    /// end at any time.
    #[test]
    fn a_process_sees_its_own_usage() {
        let own = std::process::id();
        let before = cpu(own).unwrap();
        while cpu(own).unwrap() == before {}
        assert!(busy().unwrap() > Duration::ZERO);
        let mut memory = Memory::default();
        memory.add(&read("/proc/self/smaps").unwrap());
        assert!(0 < memory.pss && memory.pss <= memory.rss);
    }
}
