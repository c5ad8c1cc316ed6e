//! Everything a benchmark starts its peers with.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::plan::{Options, Peer};
use crate::binaries;
use crate::provision::{BenchmarkTools, benchmark_tools};
use crate::rundir::RunDir;

/// The programs of all peers, and a folder for their files.
#[derive(Debug)]
pub struct Setting {
    /// Programs that we did not write.
    pub tools: BenchmarkTools,
    /// Sockets, images and logs.
    pub run: RunDir,
    /// The folder with the programs of another build, to compare this one with.
    other: Option<PathBuf>,
}

impl Setting {
    /// Fetches the tools, if need be, and makes the folder.
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

    /// One of our programs, for this peer: of this tree, or of the other build.
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
