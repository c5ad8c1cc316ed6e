//! Runs a command under ptrace and reports each system call that it makes. This module has all
//! unsafe code of `vvu-policy`.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

use libc::{c_int, pid_t};
use policies::compiler::{Arch, call_number};

/// A system call that a thread is about to make.
#[derive(Clone, Copy, Debug)]
pub struct SeenCall {
    pub number: u32,
    pub args: [u64; 6],
}

/// The result of the traced command.
pub struct Ended {
    /// Whether system calls were reported. False if no process wrote the text of `--from-output`.
    pub started: bool,
    /// The exit status or signal of the command, as words for the user.
    pub how: String,
}

/// `struct ptrace_syscall_info` of linux/ptrace.h, in its form for the entry of a system call.
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
/// The signal number that reports a stop at a system call. PTRACE_O_TRACESYSGOOD adds 0x80 to
/// SIGTRAP (ptrace(2)).
const SYSCALL_STOP: c_int = libc::SIGTRAP | 0x80;

/// A ptrace request that has no pointer as argument.
#[derive(Clone, Copy)]
enum Request {
    TraceMe,
    SetOptions,
    Syscall,
}

/// Runs the command to its end, and calls `see` for each system call of all its processes and
/// threads. If the text `from_output` is given, `see` is called only for the first process that
/// writes this text, and only after that process has written the text.
///
/// # Errors
///
/// When the command cannot be started or traced.
pub fn run(
    command: &[String],
    arch: Arch,
    from_output: Option<&str>,
    mut see: impl FnMut(&SeenCall),
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
        if libc::WIFSTOPPED(status) {
            tracer.stopped(thread, status, &mut see)?;
        } else if thread == child {
            how = describe(status);
        }
    }
    Ok(Ended {
        started: tracer.waits_for.is_none(),
        how,
    })
}

/// Starts the command under ptrace, and stops it before its first instruction.
fn start(command: &[String]) -> io::Result<pid_t> {
    let mut process = Command::new(&command[0]);
    process.args(&command[1..]);
    // SAFETY: the closure runs between fork and exec, where it must not allocate memory or take a
    // lock. The closure makes one system call and at most reads errno, so it neither allocates nor
    // locks.
    unsafe {
        process.pre_exec(|| trace(Request::TraceMe, 0, 0));
    }
    let child = process.spawn()?.id() as pid_t;
    let mut status = 0;
    // SAFETY: waitpid writes one integer through its pointer, which points to `status`.
    if unsafe { libc::waitpid(child, &mut status, 0) } != child {
        return Err(io::Error::last_os_error());
    }
    let options = libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_EXITKILL;
    trace(Request::SetOptions, child, options as usize)?;
    trace(Request::Syscall, child, 0)?;
    Ok(child)
}

struct Tracer<'a> {
    arch: Arch,
    /// The number of the system call `write`.
    write: Option<u32>,
    /// The text to wait for. It is `None` once system calls are reported.
    waits_for: Option<&'a str>,
    /// The process that wrote the text. If it is set, only system calls of this process are
    /// reported.
    writer: Option<pid_t>,
    /// The id of each thread, and the id of its process.
    processes: HashMap<pid_t, pid_t>,
}

impl Tracer<'_> {
    fn stopped(
        &mut self,
        thread: pid_t,
        status: c_int,
        see: &mut impl FnMut(&SeenCall),
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
            // A ptrace event, or the first stop of a new thread. Neither is a signal for the
            // thread.
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
        see: &mut impl FnMut(&SeenCall),
    ) -> io::Result<()> {
        let Some(info) = syscall_info(thread)? else {
            return Ok(());
        };
        if info.op != PTRACE_SYSCALL_INFO_ENTRY || info.arch != self.arch.audit() {
            return Ok(());
        }
        let seen = SeenCall {
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

/// The id of the process that a thread belongs to.
fn process_of(thread: pid_t) -> pid_t {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let group = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    group
        .and_then(|group| group.trim().parse().ok())
        .unwrap_or(thread)
}

/// Whether the `write` system call writes this text. Only its first 4096 bytes are searched.
fn writes(thread: pid_t, seen: &SeenCall, text: &str) -> bool {
    let mut buffer = vec![0; seen.args[2].min(4096) as usize];
    let memory = File::open(format!("/proc/{thread}/mem"));
    let read = memory.and_then(|memory| memory.read_exact_at(&mut buffer, seen.args[1]));
    read.is_ok() && String::from_utf8_lossy(&buffer).contains(text)
}

/// Waits for any thread to stop or end, and returns its id and status. `None` if all threads have
/// ended.
fn wait() -> io::Result<Option<(pid_t, c_int)>> {
    let mut status = 0;
    // SAFETY: waitpid writes one integer through its pointer, which points to `status`.
    match unsafe { libc::waitpid(-1, &mut status, libc::__WALL) } {
        -1 => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
            error => Err(error),
        },
        thread => Ok(Some((thread, status))),
    }
}

fn go_on(thread: pid_t, signal: c_int) -> io::Result<()> {
    gone_is_ok(trace(Request::Syscall, thread, signal as usize)).map(drop)
}

/// Returns `None` instead of an error for a thread that no longer exists, because a thread may be
/// killed at any time.
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
    // SAFETY: the kernel writes at most `size` bytes, which is the size of `info`. The fields of
    // `info` are integers, so any bytes are valid.
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

fn trace(request: Request, thread: pid_t, data: usize) -> io::Result<()> {
    let request = match request {
        Request::TraceMe => libc::PTRACE_TRACEME,
        Request::SetOptions => libc::PTRACE_SETOPTIONS,
        Request::Syscall => libc::PTRACE_SYSCALL,
    };
    // SAFETY: for these requests the kernel ignores the address and takes `data` as a number
    // (ptrace(2)), so it accesses no memory of this process.
    match unsafe { libc::ptrace(request, thread, ptr::null_mut::<u8>(), data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn describe(status: c_int) -> String {
    if libc::WIFEXITED(status) {
        format!("exited with {}", libc::WEXITSTATUS(status))
    } else {
        format!("was killed by signal {}", libc::WTERMSIG(status))
    }
}
