//! Tests of the programs' output and exit codes, as a user sees them.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod disk;
mod harness;
#[cfg(target_arch = "x86_64")]
mod inject;
mod jail;
mod kicks;
mod log;
mod lost_memory;
mod restart;
mod stop;
mod vvu_block;
mod vvu_proxy;
