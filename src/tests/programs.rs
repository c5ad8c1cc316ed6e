//! The programs as their users see them: what they say, and how they end.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod disk;
mod harness;
#[cfg(target_arch = "x86_64")]
mod inject;
mod jail;
mod vvu_block;
mod vvu_proxy;
