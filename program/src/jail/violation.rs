//! Reports a system call that the policy does not allow.
//!
//! The kernel delivers SIGSYS and does not make the system call. The handler of SIGSYS may call
//! only async-signal-safe functions, and the process may be under the control of a hostile peer.
//! Therefore the handler only formats a line in a buffer of fixed size, writes the line and exits.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use policies::Context;
use policies::compiler::{Arch, call_name};

use super::JailError;
use crate::log::stderr;

/// The exit code of a program that made a system call that the policy does not allow.
pub const EXIT_CODE: i32 = 3;

/// The name of the policy. It is set before the signal handler is installed, because a signal
/// handler must not allocate memory.
static POLICY: OnceLock<String> = OnceLock::new();

/// Installs a handler of SIGSYS that reports the system call and the policy of this context.
pub fn report_in(context: Context) -> Result<(), JailError> {
    let _ = POLICY.set(context.to_string());
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: an all-zero `sigaction` is valid and has an empty mask. The handler has the signature
    // that SA_SIGINFO requires, and calls only async-signal-safe functions.
    let result = unsafe {
        let action = action.assume_init_mut();
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSYS, action, std::ptr::null_mut())
    };
    match result {
        0 => Ok(()),
        _ => Err(JailError::Handler(io::Error::last_os_error())),
    }
}

/// The fields of `siginfo_t` for SIGSYS (see sigaction(2)).
#[repr(C)]
struct SigSys {
    signal: c_int,
    errno: c_int,
    code: c_int,
    address: *const c_void,
    call: c_int,
    arch: u32,
}

extern "C" fn handle(_signal: c_int, info: *const SigSys, context: *const c_void) {
    // SAFETY: for a SIGSYS from seccomp, `info` points to this structure, and `context` points to
    // the registers of the system call. Both stay valid until the handler returns.
    let (call, arguments) = unsafe { ((*info).call, arguments(context.cast())) };
    let mut line = Line::default();
    line.describe(call as u32, arguments);
    stderr::write_text(&line.bytes[..line.len]);
    // SAFETY: the call is async-signal-safe.
    unsafe { libc::_exit(EXIT_CODE) }
}

/// # Safety
///
/// `context` has to be the third argument of a signal handler that is still running.
#[cfg(target_arch = "x86_64")]
unsafe fn arguments(context: *const libc::ucontext_t) -> [u64; 6] {
    use libc::{REG_R8, REG_R9, REG_R10, REG_RDI, REG_RDX, REG_RSI};
    // SAFETY: the caller promises that `context` is the valid third argument of a signal handler.
    let registers = unsafe { &(*context).uc_mcontext.gregs };
    [REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9].map(|at| registers[at as usize] as u64)
}

/// # Safety
///
/// `context` has to be the third argument of a signal handler that is still running.
#[cfg(target_arch = "aarch64")]
unsafe fn arguments(context: *const libc::ucontext_t) -> [u64; 6] {
    // SAFETY: the caller promises that `context` is the valid third argument of a signal handler.
    let registers = unsafe { &(*context).uc_mcontext.regs };
    [0, 1, 2, 3, 4, 5].map(|at| registers[at])
}

/// A line of text in a buffer of fixed size, so that no memory is allocated.
struct Line {
    bytes: [u8; 320],
    len: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            bytes: [0; 320],
            len: 0,
        }
    }
}

impl Line {
    fn describe(&mut self, call: u32, arguments: [u64; 6]) {
        let policy = POLICY.get().map_or("?", String::as_str);
        self.text("policy ").text(policy).text(" does not allow ");
        match Arch::HOST.and_then(|arch| call_name(arch, call)) {
            Some(name) => self.text(name),
            None => self.text("system call ").number(call.into()),
        };
        let mut separator = "(";
        for argument in arguments {
            self.text(separator).number(argument);
            separator = ", ";
        }
        self.text(")\n");
    }

    /// Appends the text, or the part of the text that still fits into the buffer.
    fn text(&mut self, text: &str) -> &mut Self {
        let space = self.bytes.len() - self.len;
        let part = &text.as_bytes()[..text.len().min(space)];
        self.bytes[self.len..][..part.len()].copy_from_slice(part);
        self.len += part.len();
        self
    }

    /// Appends a number in hexadecimal digits.
    fn number(&mut self, number: u64) -> &mut Self {
        self.text("0x");
        let digits = (64 - number.leading_zeros()).div_ceil(4).max(1);
        for digit in (0..digits).rev() {
            let value = (number >> (4 * digit) & 0xf) as usize;
            self.text(&"0123456789abcdef"[value..=value]);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_named_with_its_arguments() {
        let mut line = Line::default();
        line.describe(
            libc::SYS_socket as u32,
            [1, 0x80001, 0, u64::MAX, 0xabcdef, 0x10],
        );
        let text = str::from_utf8(&line.bytes[..line.len]).unwrap();
        let expected =
            "does not allow socket(0x1, 0x80001, 0x0, 0xffffffffffffffff, 0xabcdef, 0x10)\n";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn a_call_without_a_name_has_its_number_and_nothing_overflows() {
        let mut line = Line::default();
        line.describe(0x1234, [u64::MAX; 6]);
        let text = str::from_utf8(&line.bytes[..line.len]).unwrap();
        assert!(text.contains("system call 0x1234("), "{text}");
        for _ in 0..10 {
            line.describe(0x1234, [u64::MAX; 6]);
        }
        assert_eq!(line.len, line.bytes.len());
    }
}
