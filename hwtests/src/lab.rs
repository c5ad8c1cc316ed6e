//! Everything that one test or demo works with.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Once;
use std::thread;

use anyhow::Result;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::binaries;
use crate::cache::Cache;
use crate::provision::{Provisioned, provision};
use crate::rundir::{RunDir, remove_all};

static INTERRUPT: Once = Once::new();

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
    ///
    /// An interrupt (SIGINT, SIGTERM, SIGHUP) then ends the process with nothing left behind.
    pub fn open(name: &str) -> Result<Self> {
        INTERRUPT.call_once(clean_up_when_interrupted);
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

fn clean_up_when_interrupted() {
    // Failing to watch signals is no reason not to run: it means files left in /dev/shm at worst.
    let Ok(mut signals) = Signals::new([SIGHUP, SIGINT, SIGTERM]) else {
        return;
    };
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            remove_all();
            std::process::exit(128 + signal);
        }
    });
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
