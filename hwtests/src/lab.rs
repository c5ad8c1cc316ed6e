//! The environment of one test or demo, such as its programs and its folder.

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

/// The downloaded programs, a folder for files, and a lock that keeps other tests from running at
/// the same time.
#[derive(Debug)]
pub struct Lab {
    /// The guests' kernel, the QEMUs and other programs.
    pub machine: Provisioned,
    /// The folder for the files of this test or demo.
    pub run: RunDir,
    /// The path of the agent program, which is the first process of a guest.
    pub agent: PathBuf,
    _lock: File,
}

impl Lab {
    /// Downloads and builds the programs, and waits until no other lab is open on this machine.
    /// Only one lab can be open at a time, because emulated guests need all processors of the
    /// machine.
    ///
    /// From this call on, SIGINT, SIGTERM or SIGHUP removes the process's files and ends the
    /// process.
    pub fn open(name: &str) -> Result<Self> {
        INTERRUPT.call_once(clean_up_on_signals);
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

fn clean_up_on_signals() {
    // If the signal handler cannot be installed, the test runs without the handler. Then an
    // interrupted test may leave files behind, such as guest memory in /dev/shm.
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

/// Runs the test `body` in a new lab. If the test fails, the lab's folder is kept, and the folder's
/// path is printed.
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
