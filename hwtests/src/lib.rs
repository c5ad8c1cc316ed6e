//! Nested virtual machines for the tests and the demo of vvu-block.
//!
//! [`Lab`] is the entry: it holds what [`provision`] fetched, a run directory, and the machine-wide
//! lock that keeps two tests from sharing the processors. From it come guests ([`vm::Vm`]) and host
//! programs ([`process::Process`]). Every wait has a deadline, and everything started ends with its
//! owner.
//!
//! The environment can say otherwise than the defaults:
//!
//! | variable | meaning |
//! | --- | --- |
//! | `VVU_CACHE` | folder for fetched things; else `vvu-block` in the user's cache folder |
//! | `VVU_PROFILE` | cargo's profile for the programs under test; else `release` |
//! | `VVU_QEMU` | a QEMU with vfio-user-pci (10.1 or newer), instead of the machine's or a fetched one |
//! | `VVU_DEBIAN_MIRROR` | where to fetch Debian packages; else where the machine's apt does |
//! | `TMPDIR` | where run folders go |
//!
//! [`provision`]: mod@provision

pub mod bench;
pub mod binaries;
pub mod cache;
pub mod cpio;
pub mod debian;
pub mod guest;
pub mod initramfs;
pub mod lab;
pub mod live;
pub mod process;
pub mod protocol;
pub mod provision;
pub mod qemu;
pub mod rundir;
pub mod scenario;
pub mod tree;
pub mod vm;
pub mod workload;

pub use anyhow::{Context, Result, anyhow, bail, ensure};
pub use lab::{Lab, test};

/// Says on stderr what a slow step is doing.
pub fn progress(what: impl std::fmt::Display) {
    eprintln!("==> {what}");
}
