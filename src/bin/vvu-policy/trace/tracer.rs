//! Runs a command and looks at each system call that it makes, with ptrace. The only unsafe code of
//! this program.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

use libc::{c_int, pid_t};
use policies::compiler::{Arch, call_number};

/// One call as it begins.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub number: u32,
    pub args: [u64; 6],
}

/// How the command ended.
pub struct Ended {
    /// Whether what was to be looked at ever began.
    pub started: bool,
    /// In words.
    pub how: String,
}

/// `struct ptrace_syscall_info` of linux/ptrace.h, as it is when a call begins.
#[repr(C)]
#[derive(Default)]
struct SyscallInfo {
    op: u8,
    padding: [u8; 3],
    arch: u32,
    instruction_pointer: u64,
    stack_pointer: u64,
    number: u64,
    args: [u64; 6],
}

const PTRACE_GET_SYSCALL_INFO: u32 = 0x420e;
const PTRACE_SYSCALL_INFO_ENTRY: u8 = 1;
/// What PTRACE_O_TRACESYSGOOD adds to SIGTRAP.
const SYSCALL_STOP: c_int = libc::SIGTRAP | 0x80;

/// Runs the command to its end and shows all calls of all its threads and processes; or, when
/// `from_output` is given, those of the process that writes it, from then on.
///
/// # Errors
///
/// When the command cannot be started or traced.
pub fn run(
    command: &[String],
    arch: Arch,
    from_output: Option<&str>,
    mut see: impl FnMut(&Seen),
) -> io::Result<Ended> {
    let child = start(command)?;
    let mut tracer = Tracer {
        arch,
        write: call_number(arch, "write"),
        waits_for: from_output,
        writer: None,
        processes: HashMap::from([(child, child)]),
    };
    let mut how = String::new();
    while let Some((thread, status)) = wait()? {
        match libc::WIFSTOPPED(status) {
            true => tracer.stopped(thread, status, &mut see)?,
            false if thread == child => how = describe(status),
            false => {}
        }
    }
    Ok(Ended {
        started: tracer.waits_for.is_none(),
        how,
    })
}

/// Starts the command; it stops before its first instruction.
fn start(command: &[String]) -> io::Result<pid_t> {
    let mut process = Command::new(&command[0]);
    process.args(&command[1..]);
    // SAFETY: ptrace is async-signal-safe and touches no memory here.
    unsafe {
        process.pre_exec(|| trace(libc::PTRACE_TRACEME, 0, 0).map(drop));
    }
    let child = process.spawn()?.id() as pid_t;
    let mut status = 0;
    // SAFETY: the pointer is valid, and the child is this process's own.
    if unsafe { libc::waitpid(child, &mut status, 0) } != child {
        return Err(io::Error::last_os_error());
    }
    let options = libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_EXITKILL;
    trace(libc::PTRACE_SETOPTIONS, child, options as usize)?;
    trace(libc::PTRACE_SYSCALL, child, 0)?;
    Ok(child)
}

struct Tracer<'a> {
    arch: Arch,
    write: Option<u32>,
    waits_for: Option<&'a str>,
    /// The process that wrote it: the only one to look at.
    writer: Option<pid_t>,
    /// Threads, and the processes that they belong to.
    processes: HashMap<pid_t, pid_t>,
}

impl Tracer<'_> {
    fn stopped(
        &mut self,
        thread: pid_t,
        status: c_int,
        see: &mut impl FnMut(&Seen),
    ) -> io::Result<()> {
        let is_new = !self.processes.contains_key(&thread);
        let process = *self
            .processes
            .entry(thread)
            .or_insert_with(|| process_of(thread));
        let signal = match libc::WSTOPSIG(status) {
            SYSCALL_STOP => {
                self.call(thread, process, see)?;
                0
            }
            // Events, and the stop that a new thread begins with.
            _ if status >> 16 != 0 => 0,
            libc::SIGSTOP if is_new => 0,
            signal => signal,
        };
        go_on(thread, signal)
    }

    fn call(
        &mut self,
        thread: pid_t,
        process: pid_t,
        see: &mut impl FnMut(&Seen),
    ) -> io::Result<()> {
        let Some(info) = syscall_info(thread)? else {
            return Ok(());
        };
        if info.op != PTRACE_SYSCALL_INFO_ENTRY || info.arch != self.arch.audit() {
            return Ok(());
        }
        let seen = Seen {
            number: info.number as u32,
            args: info.args,
        };
        match self.waits_for {
            None if self.writer.is_none_or(|writer| writer == process) => see(&seen),
            None => {}
            Some(text) if Some(seen.number) == self.write && writes(thread, &seen, text) => {
                self.waits_for = None;
                self.writer = Some(process);
            }
            Some(_) => {}
        }
        Ok(())
    }
}

/// The process that a thread belongs to.
fn process_of(thread: pid_t) -> pid_t {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let group = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    group
        .and_then(|group| group.trim().parse().ok())
        .unwrap_or(thread)
}

/// Whether a call of write has this text in it.
fn writes(thread: pid_t, seen: &Seen, text: &str) -> bool {
    let mut buffer = vec![0; seen.args[2].min(4096) as usize];
    let memory = File::open(format!("/proc/{thread}/mem"));
    let read = memory.and_then(|memory| memory.read_exact_at(&mut buffer, seen.args[1]));
    read.is_ok() && String::from_utf8_lossy(&buffer).contains(text)
}

/// The next thread that stopped or ended; none when all have ended.
fn wait() -> io::Result<Option<(pid_t, c_int)>> {
    let mut status = 0;
    // SAFETY: the pointer is valid; only children of this process are waited for.
    match unsafe { libc::waitpid(-1, &mut status, libc::__WALL) } {
        -1 => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
            error => Err(error),
        },
        thread => Ok(Some((thread, status))),
    }
}

fn go_on(thread: pid_t, signal: c_int) -> io::Result<()> {
    gone_is_ok(trace(libc::PTRACE_SYSCALL, thread, signal as usize)).map(drop)
}

/// A thread may be killed at any time.
fn gone_is_ok(result: io::Result<()>) -> io::Result<Option<()>> {
    match result {
        Ok(()) => Ok(Some(())),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(error) => Err(error),
    }
}

fn syscall_info(thread: pid_t) -> io::Result<Option<SyscallInfo>> {
    let mut info = SyscallInfo::default();
    let size = size_of::<SyscallInfo>();
    // SAFETY: the kernel writes at most `size` bytes, which `info` has.
    let result = unsafe {
        libc::ptrace(
            PTRACE_GET_SYSCALL_INFO as _,
            thread,
            size,
            ptr::from_mut(&mut info),
        )
    };
    let result = if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    };
    Ok(gone_is_ok(result)?.map(|()| info))
}

/// A request that neither reads nor writes this process's memory.
fn trace(request: impl TryInto<i64>, thread: pid_t, data: usize) -> io::Result<()> {
    let request = request.try_into().unwrap_or(-1);
    // SAFETY: none of the requests that are made through this function takes a pointer.
    match unsafe { libc::ptrace(request as _, thread, ptr::null_mut::<u8>(), data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn describe(status: c_int) -> String {
    match libc::WIFEXITED(status) {
        true => format!("exited with {}", libc::WEXITSTATUS(status)),
        false => format!("was killed by signal {}", libc::WTERMSIG(status)),
    }
}
