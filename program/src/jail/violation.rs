//! Reports a system call that the policy does not allow.
//!
//! The kernel delivers SIGSYS instead of making the call. A signal handler may do little, and a
//! peer may have taken the process over. So the handler formats into a buffer of its own, writes
//! and exits.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use policies::Context;
use policies::compiler::{Arch, call_name};

use super::JailError;

/// The exit code of a program that made such a call.
pub const EXIT_CODE: i32 = 3;

/// The name of the policy. Set before there is a handler, which must not take memory for it.
static POLICY: OnceLock<String> = OnceLock::new();

/// Sets the handler, which names the policy of this context.
pub fn report_in(context: Context) -> Result<(), JailError> {
    let _ = POLICY.set(context.to_string());
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zeroes is a valid `sigaction`, with an empty mask. The handler has the signature
    // that SA_SIGINFO asks for, and calls only what is async-signal-safe.
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

/// The part of `siginfo_t` that is about system calls (see sigaction(2)).
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
    // SAFETY: for a SIGSYS by seccomp, the kernel passes this structure and, by the other pointer,
    // the registers of the call. Both live until the handler returns.
    let (call, arguments) = unsafe { ((*info).call, arguments(context.cast())) };
    let mut line = Line::default();
    line.describe(call as u32, arguments);
    // SAFETY: `len` bytes of the buffer are initialised. Both calls are async-signal-safe.
    unsafe {
        libc::write(2, line.bytes.as_ptr().cast(), line.len);
        libc::_exit(EXIT_CODE)
    }
}

/// # Safety
///
/// The pointer has to be the one that a signal handler got as its third argument.
#[cfg(target_arch = "x86_64")]
unsafe fn arguments(context: *const libc::ucontext_t) -> [u64; 6] {
    use libc::{REG_R8, REG_R9, REG_R10, REG_RDI, REG_RDX, REG_RSI};
    // SAFETY: as the caller promises.
    let registers = unsafe { &(*context).uc_mcontext.gregs };
    [REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9].map(|at| registers[at as usize] as u64)
}

/// # Safety
///
/// The pointer has to be the one that a signal handler got as its third argument.
#[cfg(target_arch = "aarch64")]
unsafe fn arguments(context: *const libc::ucontext_t) -> [u64; 6] {
    // SAFETY: as the caller promises.
    let registers = unsafe { &(*context).uc_mcontext.regs };
    [0, 1, 2, 3, 4, 5].map(|at| registers[at])
}

/// A line of text in a buffer of its own.
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

    /// Adds as much of the text as fits.
    fn text(&mut self, text: &str) -> &mut Self {
        let space = self.bytes.len() - self.len;
        let part = &text.as_bytes()[..text.len().min(space)];
        self.bytes[self.len..][..part.len()].copy_from_slice(part);
        self.len += part.len();
        self
    }

    /// Adds a number in hexadecimal digits.
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
