//! Counts the system calls that a back-end makes per request.
//!
//! strace counts the system calls in a separate run, because strace slows the back-end down.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::measure::load;
use super::peer::Served;
use super::plan::Workload;
use super::setting::Setting;
use super::usage::family;
use crate::process::Process;
use crate::rundir::RunDir;
use crate::tree::Program;

/// The time for which system calls are counted.
const TIME: Duration = Duration::from_millis(400);

/// The time limit for strace to attach and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// The number of system calls that all threads of the peer's processes make per request. It is
/// `None` if the peer has no back-end.
pub fn count(served: &Served, workload: &Workload, setting: &Setting) -> Result<Option<f64>> {
    if served.socket.is_none() {
        return Ok(None);
    }
    let mut load = load(served, workload)?;
    // The first requests start threads, which takes additional system calls. So the requests of
    // this first period are not counted.
    load.run(TIME)?;
    let table = setting.run.file("syscalls");
    let pids = family(&served.pids())?;
    let tracer = attach(
        &pids,
        &["-f", "-c"],
        &setting.tools.strace,
        &table,
        &setting.run,
    )?;
    let requests = load.run(TIME)?.latencies.len();
    tracer.signal(Signal::INT);
    tracer.wait(PATIENCE)?;
    let text = std::fs::read_to_string(&table).context("cannot read what strace has counted")?;
    let calls = calls(&text, "total").context("strace has counted nothing")?;
    Ok(Some(calls as f64 / requests.max(1) as f64))
}

/// Starts strace with these options. strace counts the system calls by name until SIGINT ends it,
/// and writes the counts to the file `table`.
pub fn attach(
    pids: &[u32],
    options: &[&str],
    strace: &Program,
    table: &Path,
    run: &RunDir,
) -> Result<Process> {
    let mut command = strace.command();
    command.args(options).args(["-U", "calls,name", "-o"]);
    command.arg(table);
    for pid in pids {
        command.args(["-p", &pid.to_string()]);
    }
    let tracer = Process::spawn("strace", &mut command, run.path())?;
    for pid in pids {
        tracer.wait_line(&format!("Process {pid} attached"), PATIENCE)?;
    }
    Ok(tracer)
}

/// The number of system calls with this name in strace's table. The name `total` stands for all
/// system calls. Each line of the table has a number and a name.
pub fn calls(table: &str, name: &str) -> Option<u64> {
    let mut lines = table.lines().map(str::split_whitespace);
    let mut words = lines.find(|words| words.clone().last() == Some(name))?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_where_strace_has_it() {
        let table = "    calls syscall\n--------- ------\n     4000 preadv\n      300 write\n\
                     --------- ------\n     4300 total\n";
        assert_eq!(calls(table, "total"), Some(4300));
        assert_eq!(calls(table, "write"), Some(300));
        assert_eq!(calls("", "total"), None);
    }
}
