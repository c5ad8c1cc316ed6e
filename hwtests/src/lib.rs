//! Nested virtual machines for the tests and the demo of vvu-block.
//!
//! A test starts with a [`Lab`]. It has the programs that [`provision`] downloaded, a folder for
//! files, and a lock, so that only one test on the machine uses the processors. With a lab, tests
//! start guests ([`vm::Vm`]) and programs on the host ([`process::Process`]). Every wait has a
//! deadline. Guests and programs end when their owner is dropped.
//!
//! Environment variables replace the defaults:
//!
//! | variable | meaning |
//! | --- | --- |
//! | `VVU_CACHE` | the folder for downloads; default: `vvu-block` in the user's cache folder |
//! | `VVU_PROFILE` | cargo's profile for the programs under test; default: `release` |
//! | `VVU_QEMU` | a QEMU with vfio-user-pci; default: the machine's if it fits, or a download |
//! | `VVU_DEBIAN_MIRROR` | the address of a Debian mirror; default: that of the machine's apt |
//! | `TMPDIR` | the parent of the folders for files |
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
pub mod vm;
pub mod workload;

pub use anyhow::{Context, Result, anyhow, bail, ensure};
pub use lab::{Lab, test};

/// Prints a description of a slow step on stderr.
pub fn progress(step: impl std::fmt::Display) {
    eprintln!("==> {step}");
}
