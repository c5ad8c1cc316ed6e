//! Makes one system call in a child that has a filter.

use libc::c_long;
use policies::{Context, Violation, install};

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The call was made and succeeded.
    Done,
    /// It failed with this error number.
    Error(i32),
    /// The process was ended by this signal.
    Signal(i32),
}

/// Exit code of error number 0; that of error number N is N more.
const ERRORS: i32 = 100;
/// Exit code when the filter could not be installed.
const NO_FILTER: i32 = 99;

/// Attempts a call where a violation ends the process.
pub fn attempt(context: Context, number: c_long, args: [c_long; 6]) -> Outcome {
    attempt_with(context, Violation::KillProcess, number, args)
}

/// Attempts a call.
pub fn attempt_with(
    context: Context,
    violation: Violation,
    number: c_long,
    args: [c_long; 6],
) -> Outcome {
    // SAFETY: the child only makes system calls, allocates (which glibc allows after a fork of a
    // process with threads) and ends. It never returns from this block.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = match install(context, violation) {
            Ok(()) => call(number, args),
            Err(_) => NO_FILTER,
        };
        // SAFETY: the call ends this process.
        unsafe { libc::_exit(code) };
    }
    assert!(child > 0);
    let mut status = 0;
    // SAFETY: the pointer is valid, and the child belongs to this process.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    if libc::WIFSIGNALED(status) {
        return Outcome::Signal(libc::WTERMSIG(status));
    }
    match libc::WEXITSTATUS(status) {
        0 => Outcome::Done,
        NO_FILTER => panic!("{context}: no filter"),
        code => Outcome::Error(code - ERRORS),
    }
}

fn call(number: c_long, args: [c_long; 6]) -> i32 {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the tests choose calls that do not harm this short-lived process.
    match unsafe { libc::syscall(number, a, b, c, d, e, f) } {
        -1 => ERRORS + std::io::Error::last_os_error().raw_os_error().unwrap_or(0),
        _ => 0,
    }
}
