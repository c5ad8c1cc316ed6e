//! Makes one system call in a child process that has a seccomp filter.

use libc::c_long;
use policies::{Context, Violation, install};

/// The result of one system call in a child process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The system call succeeded.
    Done,
    /// The system call failed with this error number.
    Error(i32),
    /// This signal ended the child process.
    Signal(i32),
}

/// The exit code of the child is this number plus the error number of the system call.
const ERRORS: i32 = 100;
/// The exit code of the child when the filter could not be installed.
const NO_FILTER: i32 = 99;

/// Makes a system call in a child process. A violation of the filter ends the child.
pub fn attempt(context: Context, number: c_long, args: [c_long; 6]) -> Outcome {
    attempt_with(context, Violation::KillProcess, number, args)
}

/// Makes a system call in a child process. `violation` is the action for a violation of the filter.
pub fn attempt_with(
    context: Context,
    violation: Violation,
    number: c_long,
    args: [c_long; 6],
) -> Outcome {
    // SAFETY: the child only makes system calls, allocates memory (which glibc allows after a fork
    // of a process with threads) and ends. The child ends before it could return from this
    // function.
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
    // SAFETY: the pointer to `status` is valid, and the child belongs to this process.
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
