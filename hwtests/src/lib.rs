//! Nested virtual machines for the tests and the demo of vvu-block.
//!
//! A test starts with a [`Lab`]. The lab has the programs that [`provision`] downloaded, a folder
//! for files, and a lock that lets only one test at a time use the machine's processors. With a
//! lab, tests start guests ([`vm::Vm`]) and programs on the host ([`process::Process`]). Every wait
//! has a deadline. A guest or program ends when the value that represents it is dropped.
//!
//! Environment variables replace the defaults:
//!
//! | variable | meaning |
//! | --- | --- |
//! | `VVU_CACHE` | the folder for downloads; default: `vvu-block` in the user's cache folder |
//! | `VVU_PROFILE` | cargo's profile for the programs under test; default: `release` |
//! | `VVU_QEMU` | the path of QEMU 10.1 or newer; default: the machine's QEMU, or a download |
//! | `VVU_DEBIAN_MIRROR` | a Debian mirror's address; default: the mirror of the machine's apt |
//! | `TMPDIR` | the folder in which each test creates a folder for its files |
//!
//! [`provision`]: mod@provision

pub mod bench;
pub mod binaries;
pub mod cache;
pub mod cpio;
pub mod debian;
pub mod device;
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
pub mod villain;
pub mod vm;
pub mod workload;

pub use anyhow::{Context, Result, anyhow, bail, ensure};
pub use lab::{Lab, test};

/// Prints a description of a slow step on stderr.
pub fn progress(step: impl std::fmt::Display) {
    eprintln!("==> {step}");
}
