//! Everything that one test or demo works with.

use std::fs::File;
use std::path::PathBuf;

use anyhow::Result;

use crate::binaries;
use crate::cache::Cache;
use crate::provision::{Provisioned, provision};
use crate::rundir::RunDir;

/// The machine's provisions, a run folder, and the right to use the processors.
#[derive(Debug)]
pub struct Lab {
    /// Kernel, QEMUs, programs.
    pub machine: Provisioned,
    /// Files of this run.
    pub run: RunDir,
    /// The guest agent.
    pub agent: PathBuf,
    _lock: File,
}

impl Lab {
    /// Gets everything ready, then waits for other labs on the machine to end: guests under
    /// emulation need the processors for themselves.
    pub fn open(name: &str) -> Result<Self> {
        let machine = provision()?;
        let agent = binaries::build("hwtests", "guest-agent")?;
        let lock = Cache::open()?.lock("lab")?;
        Ok(Self {
            machine,
            run: RunDir::new(name)?,
            agent,
            _lock: lock,
        })
    }
}

/// Runs a test in a lab. Its run folder stays, and is named, when the test fails.
///
/// # Panics
///
/// When the test fails.
pub fn test(name: &str, body: impl FnOnce(&Lab) -> Result<()>) {
    let outcome = Lab::open(name).and_then(|lab| {
        body(&lab)?;
        lab.run.discard()
    });
    if let Err(error) = outcome {
        panic!("{error:#}");
    }
}
