//! The programs and the folder that a benchmark needs to start its peers.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::plan::{Options, Peer};
use crate::binaries;
use crate::provision::{BenchmarkTools, benchmark_tools};
use crate::rundir::RunDir;

/// The programs of all peers, and a folder for their files.
#[derive(Debug)]
pub struct Setting {
    /// The programs of other projects, such as fio and qemu-storage-daemon.
    pub tools: BenchmarkTools,
    /// The folder for sockets, images and logs.
    pub run: RunDir,
    /// The folder with the programs of another build, with which this build is compared.
    other: Option<PathBuf>,
}

impl Setting {
    /// Downloads the programs of other projects if they are not in the cache yet, and creates the
    /// folder for sockets, images and logs.
    pub fn new(options: &Options) -> Result<Self> {
        let other = options.beside.as_ref().map(|folder| {
            let found = folder.canonicalize();
            found.with_context(|| format!("cannot find the other build {}", folder.display()))
        });
        Ok(Self {
            tools: benchmark_tools()?,
            other: other.transpose()?,
            run: RunDir::new("bench")?,
        })
    }

    /// The path of our program `name` for this peer. Depending on the peer, the program is from
    /// this build or from the other build.
    pub fn program(&self, peer: Peer, name: &str) -> Result<PathBuf> {
        if !peer.is_other() {
            return binaries::build("vvu-block", name);
        }
        let folder = self.other.as_ref().context("no other build is named")?;
        let program = folder.join(name);
        ensure!(program.is_file(), "{} is missing", program.display());
        Ok(program)
    }
}
