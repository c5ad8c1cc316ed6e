//! What processes and the machine have used, from /proc.

use std::fs;

use anyhow::{Context, Result};

/// Time that processes have used, in clock ticks, and how often they gave up a processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all threads, in clock ticks.
    pub ticks: u64,
    /// Context switches of all threads that are there.
    pub switches: u64,
}

impl Usage {
    /// What these processes and their descendants have used so far.
    pub fn of(pids: &[u32]) -> Result<Self> {
        let mut sum = Self::default();
        for pid in family(pids)? {
            sum.ticks += ticks(pid)?;
            sum.switches += switches(pid)?;
        }
        Ok(sum)
    }

    /// What was used since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            ticks: self.ticks.saturating_sub(before.ticks),
            switches: self.switches.saturating_sub(before.switches),
        }
    }
}

/// These processes and their descendants.
pub fn family(pids: &[u32]) -> Result<Vec<u32>> {
    let mut all = pids.to_vec();
    let mut at = 0;
    while let Some(&pid) = all.get(at) {
        all.extend(children(pid)?);
        at += 1;
    }
    Ok(all)
}

/// Memory of a process in bytes, without what it shares with others, such as a front-end's.
pub fn resident(pid: u32) -> Result<u64> {
    let status = read(&format!("/proc/{pid}/status"))?;
    parse_resident(&status).with_context(|| format!("cannot read the memory of process {pid}"))
}

fn parse_resident(status: &str) -> Option<u64> {
    let kilobytes = |name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    Some((kilobytes("RssAnon:")? + kilobytes("RssFile:")?) << 10)
}

/// Clock ticks in which the machine's processors were not idle.
pub fn busy_ticks() -> Result<u64> {
    let stat = read("/proc/stat")?;
    let first = stat.lines().next().unwrap_or_default();
    let numbers: Vec<u64> = first.split(' ').filter_map(|n| n.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; what follows is part of the first two.
    let busy = [0, 1, 2, 5, 6, 7];
    Ok(busy.iter().filter_map(|&at| numbers.get(at)).sum())
}

/// Clock ticks that children of this process used which have ended.
pub fn children_ticks() -> Result<u64> {
    let stat = read("/proc/self/stat")?;
    parse_ticks(&stat, 13).context("cannot read the CPU time of children")
}

/// The machine's load averages, as the kernel prints them.
pub fn load_average() -> String {
    let text = read("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Seconds in a clock tick.
pub fn tick() -> f64 {
    1.0 / rustix::param::clock_ticks_per_second() as f64
}

fn ticks(pid: u32) -> Result<u64> {
    let stat = read(&format!("/proc/{pid}/stat"))?;
    parse_ticks(&stat, 11).with_context(|| format!("cannot read the CPU time of process {pid}"))
}

/// Two times that lie `skip` fields after the name, which may hold anything: 11 for the process's
/// own (utime and stime), 13 for its children's.
fn parse_ticks(stat: &str, skip: usize) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(skip);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The processes whose parent this is. Not every kernel lists them at their parent.
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
        // A thread may have ended since.
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
        let status = "VmRSS:\t  990 kB\nRssAnon:\t   8 kB\nRssFile:\t  4 kB\nRssShmem:\t 9 kB\n";
        assert_eq!(parse_resident(status), Some(12 << 10));
    }

    #[test]
    fn one_s_own_usage_is_there() {
        let own = Usage::of(&[std::process::id()]).unwrap();
        assert_eq!(own.since(own), Usage::default());
        assert!(busy_ticks().unwrap() > 0);
        assert!(resident(std::process::id()).unwrap() > 0);
    }
}
